"""How make cuda-check reads PTX and machine code; the check itself needs an nvcc."""

from programs.cuda_check import machine_widths, narrow, ptx_widths

PTX = """
.visible .entry whole(.param .u64 a)
{ ld.param.u64 %rd1, [a]; ld.global.v4.f32 {%f1,%f2,%f3,%f4}, [%rd1]; ld.global.u32 %r1, [%rd2];
  st.global.wb.v4.u32 [%rd1], {%r1,%r2,%r3,%r4}; st.shared.v4.f32 [%r5], {%f1,%f2,%f3,%f4}; }
.visible .entry split(.param .u64 a)
{ ld.global.v2.u64 {%rd3,%rd4}, [%rd1]; st.global.f32 [%rd1], %f1; st.global.f32 [%rd1+4], %f2; }
"""
MACHINE = """
\tFunction : whole
  /*0100*/ LDG.E.128 R4, desc[UR4][R2.64] ;   /*0110*/ STG.E.128 desc[UR4][R2.64], R4 ;
\tFunction : split
  /*0100*/ LDG.E.64.CONSTANT R4, [R2.64] ; /*0110*/ STG.E [R2.64], R4 ;
  /*0120*/ LDG.E.U16 R4, [R2] ;
"""


def test_widths_are_those_of_global_memory():
    assert ptx_widths(PTX) == {"whole": {"load": 16, "store": 16},
                               "split": {"load": 16, "store": 4}}
    assert machine_widths(MACHINE) == {"whole": {"load": 16, "store": 16},
                                       "split": {"load": 8, "store": 4}}


def test_a_store_that_was_split_is_a_fault():
    split = ptx_widths(PTX)["split"]
    assert narrow("interp", "pixel_backward_kernel<float, 4, uint32>", split) == [
        "store of 4 bytes"]
    assert narrow("interp", "plane_forward_kernel<__half>", split) == ["store of 4 bytes"]
    assert narrow("interp", "pixel_backward_kernel<float, 2, uint32>", split) == []
    assert narrow("pool_pyramid", "plane_cells_kernel<double, 2, true>", split) == []


def test_a_kernel_of_packs_must_be_listed():
    split = ptx_widths(PTX)["split"]
    assert narrow("pool", "new_kernel<float, 4>", split) == ["a pack that WHOLE does not know"]
    assert narrow("pool", "cover_kernel", split) == []
