'use strict';
const $ = id => document.getElementById(id);
const UNLABELLED = 255;
const viewer = document.querySelector('.viewer');
const items = [...$('items').children];
const stage = $('stage');
const figures = [...stage.querySelectorAll('figure')];
const layerButtons = [...$('layers').children];
const classButtons = [...$('classes').querySelectorAll('button')];
const classNames = classButtons.map(button => button.textContent);
const narrow = matchMedia('(max-width: 48rem)').matches;
const state = {
  picture: -1, sliding: narrow, shown: new Set(layerButtons.keys()), pair: [], off: new Set(),
  maps: [], width: 1, height: 1, point: null, drag: null,
};

/* The rows of a grey or indexed PNG of the kind that encode.py writes: one IDAT, no filters. */
async function decode(url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(',') + 1)), c => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const width = view.getUint32(16), height = view.getUint32(20);
  let at = 8;
  while (view.getUint32(at + 4) !== 0x49444154) at += 12 + view.getUint32(at);
  const packed = new Blob([bytes.subarray(at + 8, at + 8 + view.getUint32(at))]);
  const rows = new Uint8Array(await new Response(
    packed.stream().pipeThrough(new DecompressionStream('deflate'))).arrayBuffer());
  const values = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    values.set(rows.subarray(y * (width + 1) + 1, (y + 1) * (width + 1)), y * width);
  }
  return {width, height, values};
}

async function readMap(figure) {
  const {confidence, iou} = figure.dataset;
  return {
    ...await decode(figure.querySelector('.labels').getAttribute('href')),
    confidence: confidence ? await decode(confidence) : null,
    iou: iou ? JSON.parse(iou) : null,
  };
}

function show(number) {
  if (number < 0 || number >= items.length) return;
  state.picture = number;
  const sheet = items[number].querySelector('.sheet');
  items.forEach((item, k) => {
    const button = item.querySelector('button');
    button.tabIndex = k === number ? 0 : -1;
    if (k === number) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
  });
  scrollToThumbnail(items[number]);
  $('name').textContent = sheet.querySelector('bdi').textContent;
  $('place').textContent = `${number + 1} of ${items.length}`;
  $('status').textContent = `${$('name').textContent}, ${$('place').textContent}`;
  $('note').textContent = sheet.querySelector('.note')?.textContent ?? '';
  $('previous').disabled = number === 0;
  $('next').disabled = number === items.length - 1;
  load(number, [...sheet.querySelectorAll('figure')]).catch(error => {
    $('note').textContent = `This browser cannot show the picture (${error.message}). Use a `
      + 'browser of 2023 or later.';
  });
}

async function load(number, sources) {
  const image = sources[0].querySelector('image'), photograph = new Image(), maps = [];
  const width = image.width.baseVal.value, height = image.height.baseVal.value;
  stage.style.setProperty('--ratio', width / height);  // before the pictures are there
  photograph.src = image.getAttribute('href');
  await photograph.decode();
  for (const source of sources.slice(1)) maps[source.dataset.layer] = await readMap(source);
  if (state.picture !== number) return;
  Object.assign(state, {maps, point: null, width, height});
  figures.forEach((figure, layer) => {
    const source = sources.find(s => s.dataset.layer === String(layer));
    const text = source?.querySelector('svg').getAttribute('aria-label') ?? '';
    figure.querySelector('img').src = photograph.src;
    if (layer === 0) figure.querySelector('img').alt = text;
    else figure.querySelector('canvas').setAttribute('aria-label', text);
  });
  const present = new Set(maps.flatMap(map => [...new Set(map.values)]));
  classButtons.forEach((button, k) => { button.parentNode.hidden = !present.has(k); });
  $('wrong').disabled = !available(1);
  paint();
  render();
}

function scrollToThumbnail(item) {
  const nav = viewer.querySelector('nav');
  nav.scrollTop = item.offsetTop - (nav.clientHeight - item.offsetHeight) / 2;
  nav.scrollLeft = item.offsetLeft - (nav.clientWidth - item.offsetWidth) / 2;
}

function paint() {
  const bytes = new Uint8Array(4 * 256);
  classButtons.forEach((button, k) => {
    if (state.off.has(k)) return;
    const colour = parseInt(button.dataset.colour.slice(1), 16);
    bytes.set([colour >> 16, colour >> 8 & 255, colour & 255, 255], 4 * k);
  });
  const table = new Uint32Array(bytes.buffer), truth = state.maps[1]?.values;
  state.maps.forEach((map, layer) => {
    const canvas = figures[layer].querySelector('canvas');
    canvas.width = map.width;
    canvas.height = map.height;
    const pixels = new ImageData(map.width, map.height);
    const colours = new Uint32Array(pixels.data.buffer), values = map.values;
    const onlyWrong = $('wrong').checked && truth && layer > 1;
    for (let i = 0; i < values.length; i++) {
      const hidden = onlyWrong && (truth[i] === values[i] || truth[i] === UNLABELLED);
      colours[i] = hidden ? 0 : table[values[i]];
    }
    canvas.getContext('2d').putImageData(pixels, 0, 0);
  });
}

function available(layer) { return layer === 0 || state.maps[layer] !== undefined; }

function render() {
  const chosen = state.sliding ? state.pair : [...state.shown];
  const visible = chosen.filter(available).sort((a, b) => a - b);
  figures.forEach((figure, k) => {
    figure.hidden = !visible.includes(k);
    figure.classList.toggle('right', state.sliding && visible.length > 1 && k === visible.at(-1));
  });
  layerButtons.forEach((button, k) => {
    button.setAttribute('aria-pressed', String(chosen.includes(k)));
    button.disabled = !available(k);
  });
  stage.classList.toggle('sliding', state.sliding);
  $('tiles').setAttribute('aria-pressed', String(!state.sliding));
  $('slider').setAttribute('aria-pressed', String(state.sliding));
  stage.classList.toggle('pointing', state.point !== null);
  figures.forEach((figure, k) => readOut(figure.querySelector('.readout'), k));
}

function readOut(place, layer) {
  place.replaceChildren();
  if (!state.point) return;
  const {x, y} = state.point, map = state.maps[layer];
  if (!map) {
    place.textContent = `x ${x}, y ${y}`;
    return;
  }
  const label = map.values[y * map.width + x];
  if (label === UNLABELLED) {
    place.textContent = 'unlabelled';
    return;
  }
  const parts = [classNames[label]];
  if (map.confidence) {
    const {width, height, values} = map.confidence;
    const row = Math.floor(y * height / map.height), column = Math.floor(x * width / map.width);
    parts.push(`probability\u00a0${values[row * width + column]}%`);
  }
  if (map.iou && map.iou[label] !== null) parts.push(`IoU\u00a0${map.iou[label].toFixed(1)}%`);
  const swatch = classButtons[label].querySelector('.swatch').cloneNode();
  place.append(swatch, parts.join(' · '));
}

function pointAt(x, y) {
  const within = (value, size) => Math.min(size - 1, Math.max(0, value));
  state.point = {x: within(x, state.width), y: within(y, state.height)};
  stage.style.setProperty('--x', `${100 * (state.point.x + .5) / state.width}%`);
  stage.style.setProperty('--y', `${100 * (state.point.y + .5) / state.height}%`);
  render();
}

function pointAtEvent(event) {
  const stack = event.target.closest('.stack')
    ?? (state.sliding ? stage.querySelector('figure:not([hidden]) .stack') : null);
  const box = stack?.getBoundingClientRect();
  if (!box || event.clientY > box.bottom) return false;
  pointAt(Math.floor((event.clientX - box.left) / box.width * state.width),
          Math.floor((event.clientY - box.top) / box.height * state.height));
  return true;
}

function sayPoint() {
  $('status').textContent = figures.filter(figure => !figure.hidden)
    .map(figure => figure.querySelector('figcaption').textContent).join('; ');
}

function setDivider(percent) {
  $('divide').value = percent;
  stage.style.setProperty('--divide', `${$('divide').value}%`);
}

function setOpacity(percent) {
  $('opacity').value = percent;
  $('percent').textContent = `${$('opacity').value}%`;
  viewer.style.setProperty('--opacity', $('opacity').value / 100);
}

function setSliding(sliding) {
  state.sliding = sliding;
  render();
}

function chooseLayer(layer) {
  if (!available(layer)) return;
  if (!state.sliding) {
    if (!state.shown.delete(layer)) state.shown.add(layer);
  } else if (!state.pair.includes(layer)) {
    state.pair = [state.pair.at(-1), layer];
  }
  render();
}

function switchClasses(classes, on) {
  for (const k of classes) {
    if (on) state.off.delete(k);
    else state.off.add(k);
    classButtons[k].setAttribute('aria-pressed', String(on));
  }
  paint();
}

function toggleHelp() {
  $('help').hidden = !$('help').hidden;
  $('keys').setAttribute('aria-expanded', String(!$('help').hidden));
}

const KEYS = {
  ArrowLeft: () => show(state.picture - 1), k: () => show(state.picture - 1),
  ArrowRight: () => show(state.picture + 1), j: () => show(state.picture + 1),
  s: () => setSliding(!state.sliding), '?': toggleHelp,
  '+': () => setOpacity(+$('opacity').value + 10), '=': () => setOpacity(+$('opacity').value + 10),
  '-': () => setOpacity($('opacity').value - 10),
};
const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

// Keys belong to the whole page where the viewer is all of it, else to the viewer in focus.
(viewer.matches('main') ? document : viewer).addEventListener('keydown', event => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.type === 'range' && event.key.startsWith('Arrow')) return;
  if (event.shiftKey && event.key in STEPS) {
    const step = Math.max(1, Math.round(Math.max(state.width, state.height) / 64));
    const {x, y} = state.point ?? {x: state.width >> 1, y: state.height >> 1};
    const [dx, dy] = state.point ? STEPS[event.key] : [0, 0];
    pointAt(x + step * dx, y + step * dy);
    sayPoint();
  } else if (/^[1-9]$/.test(event.key)) {
    const numbered = layerButtons.filter(button => !button.hidden);
    chooseLayer(layerButtons.indexOf(numbered[event.key - 1]));
  } else {
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    action();
  }
  event.preventDefault();
});

stage.addEventListener('pointerdown', event => {
  if (!state.sliding || event.button !== 0) return;
  state.drag = {x: event.clientX, moved: false};
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener('pointermove', event => {
  if (!state.drag) {
    if (event.pointerType === 'mouse') pointAtEvent(event);
    return;
  }
  state.drag.moved ||= Math.abs(event.clientX - state.drag.x) > 4;
  const box = stage.getBoundingClientRect();
  if (state.drag.moved) setDivider(100 * (event.clientX - box.left) / box.width);
});
stage.addEventListener('pointerup', event => {
  if (!state.drag?.moved && pointAtEvent(event)) sayPoint();
  state.drag = null;
});
stage.addEventListener('pointercancel', () => { state.drag = null; });
stage.addEventListener('pointerleave', event => {
  if (event.pointerType !== 'mouse') return;
  state.point = null;
  render();
});

items.forEach((item, k) => item.querySelector('button').addEventListener('click', () => show(k)));
layerButtons.forEach((button, k) => button.addEventListener('click', () => chooseLayer(k)));
classButtons.forEach((button, k) => button.addEventListener('click',
  () => switchClasses([k], state.off.has(k))));
$('all').addEventListener('click', () => switchClasses(classButtons.keys(), true));
$('none').addEventListener('click', () => switchClasses(classButtons.keys(), false));
$('previous').addEventListener('click', () => show(state.picture - 1));
$('next').addEventListener('click', () => show(state.picture + 1));
$('keys').addEventListener('click', toggleHelp);
$('tiles').addEventListener('click', () => setSliding(false));
$('slider').addEventListener('click', () => setSliding(true));
$('opacity').addEventListener('input', event => setOpacity(event.target.value));
$('divide').addEventListener('input', event => setDivider(event.target.value));
$('wrong').addEventListener('change', paint);

const hasTruth = viewer.querySelector('.sheet [data-layer="1"]') !== null;
layerButtons[1].hidden = figures[1].hidden = $('wrong-label').hidden = !hasTruth;
$('probability').hidden = !viewer.querySelector('[data-confidence]');
state.pair = [...layerButtons.keys()].filter(k => k !== 1 || hasTruth).slice(-2);
setOpacity(55);
setDivider(50);
show(0);
