"""Networks of a layer, as texts."""

from prototxt_import import load_net


def build(tmp_path, layers, shapes, phase="TRAIN"):
    """A network in float64 of inputs x, z, w with these shapes."""
    text = ""
    for name, shape in zip("xzw", shapes):
        dims = " ".join(f"dim: {size}" for size in shape)
        text += f'input: "{name}" input_shape {{ {dims} }}\n'
    path = tmp_path / "net.prototxt"
    path.write_text(text + layers)
    return load_net(path, phase=phase).double()


def layer(kind, fields="", bottoms="x", tops="y"):
    """The text of a layer named l."""
    ends = " ".join([f'bottom: "{b}"' for b in bottoms] + [f'top: "{t}"' for t in tops])
    return f'layer {{ name: "l" type: "{kind}" {ends} {fields} }}'
