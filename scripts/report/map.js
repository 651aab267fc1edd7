"use strict";
// The view of a trained map. Each map is on the page as the very file of results/maps, a NumPy archive.

/** Arrays of an .npz file by name, each {shape, values}; `values` is flat. */
async function readArchive(bytes) {
  const view = new DataView(bytes.buffer);
  let end = bytes.length - 22;
  while (view.getUint32(end, true) !== 0x06054b50) end--;
  let place = view.getUint32(end + 16, true);
  const arrays = {};
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const size = view.getUint32(place + 20, true), start = view.getUint32(place + 42, true);
    const nameLength = view.getUint16(place + 28, true);
    const name = new TextDecoder().decode(bytes.subarray(place + 46, place + 46 + nameLength));
    const content = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
    const packed = new Blob([bytes.subarray(content, content + size)]).stream();
    const plain = view.getUint16(place + 10, true) ? packed.pipeThrough(new DecompressionStream("deflate-raw")) : packed;
    arrays[name.replace(/\.npy$/, "")] = readArray(await new Response(plain).arrayBuffer());
    place += 46 + nameLength + view.getUint16(place + 30, true) + view.getUint16(place + 32, true);
  }
  return arrays;
}

/** One .npy file in its first version, little-endian and in C order, as NumPy writes it. */
function readArray(buffer) {
  const start = 10 + new DataView(buffer).getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, 10, start - 10));
  const [, type] = header.match(/'descr': '([^']+)'/), [, inside] = header.match(/'shape': \(([^)]*)\)/);
  const shape = inside.split(",").filter((text) => text.trim()).map(Number), content = buffer.slice(start);
  if (type.startsWith("<U")) {
    const length = Number(type.slice(2)), points = new Uint32Array(content), values = [];
    for (let i = 0; i < points.length; i += length) {
      values.push(String.fromCodePoint(...points.subarray(i, i + length).filter((point) => point)));
    }
    return { shape, values };
  }
  const kinds = { "|u1": Uint8Array, "|b1": Uint8Array, "<u4": Uint32Array, "<f4": Float32Array, "<f8": Float64Array, "<i8": BigInt64Array };
  const values = new kinds[type](content);
  return { shape, values: type === "<i8" ? Array.from(values, Number) : values };
}

/** What the page shows of a map: per unit its pictures, hits, counts, distance and nearest samples. */
async function readMap(key) {
  const text = document.querySelector(`script[data-map="${key}"]`).textContent;
  const arrays = await readArchive(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
  const [rows, columns] = arrays.map_size.values, classes = arrays.classes.values;
  const [, channels, height, width] = arrays.decoded.shape;
  const size = channels * height * width, kept = arrays.nearest.shape[1] ?? 1;
  const picture = (values, place) => values.subarray(place * size, (place + 1) * size);
  const units = Array.from({ length: rows * columns }, (_, unit) => {
    const counts = [...arrays.counts.values.subarray(unit * classes.length, (unit + 1) * classes.length)];
    const hits = counts.reduce((sum, count) => sum + count, 0);
    const samples = [];
    for (let rank = 0; rank < kept; rank++) {
      const number = arrays.nearest.values[unit * kept + rank];
      if (number >= 0) samples.push({ number, picture: picture(arrays.nearest_samples.values, unit * kept + rank) });
    }
    return {
      row: Math.floor(unit / columns), column: unit % columns, counts, hits, samples,
      majority: counts.indexOf(Math.max(...counts)), distance: arrays.u_matrix.values[unit],
      decoded: picture(arrays.decoded.values, unit),
    };
  });
  return { key, rows, columns, torus: Boolean(arrays.torus.values[0]), classes, units, channels, height, width };
}

const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });
const count = (value) => value.toLocaleString("en");
const scale = data.colours.scale;
const shade = (share) => scale[Math.round(Math.max(0, Math.min(1, share || 0)) * (scale.length - 1))];
const classColour = (map, index) =>
  map.classes.length <= data.colours.classes.length ? data.colours.classes[index] : shade(index / (map.classes.length - 1));

function drawPicture(map, values) {
  const canvas = element("canvas", { width: map.width, height: map.height });
  const image = new ImageData(map.width, map.height), area = map.width * map.height;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = values[map.channels === 1 ? i : c * area + i];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const layers = {
  decoded: (map, unit) => drawPicture(map, unit.decoded),
  samples: (map, unit) => (unit.samples.length ? drawPicture(map, unit.samples[0].picture) : null),
  distances: (map, unit) => shade((unit.distance - map.least) / (map.greatest - map.least)),
  hits: (map, unit) => (unit.hits ? shade(unit.hits / map.most) : null),
  labels: (map, unit) => (unit.hits ? classColour(map, unit.majority) : null),
};

function drawMap(map, layer, canvas) {
  const cell = Math.max(24, Math.floor(880 / map.columns));
  const tall = Math.round(cell * Math.max(0.5, Math.min(2, map.height / map.width)));
  Object.assign(canvas, { width: cell * map.columns, height: tall * map.rows });
  const context = canvas.getContext("2d"), frame = Math.max(2, Math.round(cell / 18));
  context.imageSmoothingEnabled = false;
  for (const unit of map.units) {
    const [left, top] = [unit.column * cell, unit.row * tall];
    const [width, height] = [cell - 2 * frame, tall - 2 * frame];
    const shown = layers[layer](map, unit);
    const pictures = layer === "decoded" || layer === "samples";
    context.fillStyle = pictures ? layers.distances(map, unit) : shown ?? "#8886";
    if (pictures) {
      context.fillRect(left, top, cell, tall);
      context.clearRect(left + frame, top + frame, width, height);
      if (shown) context.drawImage(shown, left + frame, top + frame, width, height);
    } else {
      const share = layer === "labels" && unit.hits ? Math.sqrt(unit.counts[unit.majority] / unit.hits) : 1;
      const [wide, high] = [(cell - 2) * share, (tall - 2) * share];
      if (shown) context.fillRect(left + (cell - wide) / 2, top + (tall - high) / 2, wide, high);
    }
    if (!shown) { // a unit that wins nothing
      context.strokeStyle = "#8888";
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(left + frame, top + tall - frame);
      context.lineTo(left + cell - frame, top + frame);
      context.stroke();
    }
  }
}

function drawKey(map, layer) {
  const key = document.getElementById("map-key");
  const gradient = () => element("span", { className: "scale", style: `background: linear-gradient(90deg, ${scale.join()})` });
  if (layer === "labels") {
    const items = map.classes.map((name, index) =>
      element("li", {}, element("span", { className: "class", style: `background: ${classColour(map, index)}` }), name));
    key.replaceChildren(element("ul", {}, ...items), "Colour: the most frequent class; area: its share of the unit’s samples.");
  } else if (layer === "hits") {
    key.replaceChildren("samples won: 0", gradient(), count(map.most));
  } else {
    const what = layer === "distances" ? "distance" : "frame: distance";
    key.replaceChildren(`${what} to neighbours ${number(map.least)}`, gradient(), number(map.greatest));
  }
  if (map.torus) key.append(element("br"), "Opposite edges are neighbours.");
}

function showUnit(map, unit) {
  const picture = (values, caption) => {
    const canvas = drawPicture(map, values);
    return element("figure", {}, canvas, element("figcaption", {}, caption));
  };
  const bars = map.classes.map((name, index) => {
    const width = unit.hits ? (100 * unit.counts[index]) / Math.max(...unit.counts) : 0;
    const bar = element("span", { className: "bar", style: `width: ${width}%; background: ${classColour(map, index)}` });
    return element("tr", {}, element("td", {}, name), element("td", {}, unit.counts[index] ? bar : ""),
      element("td", { className: "numeric" }, unit.counts[index] ? count(unit.counts[index]) : ""));
  });
  document.getElementById("unit").replaceChildren(
    element("h3", {}, `Unit in row ${unit.row}, column ${unit.column}`),
    element("div", { className: "pictures" }, picture(unit.decoded, "prototype"),
      ...unit.samples.map((sample, rank) => picture(sample.picture, rank ? `next, no. ${sample.number}` : `nearest, no. ${sample.number}`))),
    element("p", {}, unit.hits ? `wins ${count(unit.hits)} ${unit.hits === 1 ? "sample" : "samples"}` : "wins no sample",
      Number.isNaN(unit.distance) ? "" : `; ${number(unit.distance)} from its neighbours`),
    element("table", { "aria-label": "samples by class" }, element("tbody", {}, ...bars)),
  );
}

async function showMap(key) {
  const map = await readMap(key);
  const distances = map.units.map((unit) => unit.distance).filter((value) => !Number.isNaN(value));
  map.least = Math.min(...distances);
  map.greatest = Math.max(...distances);
  map.most = Math.max(...map.units.map((unit) => unit.hits));
  const view = document.getElementById("map-view"), canvas = view.querySelector("canvas");
  const grid = element("div", { className: "units", style: `grid-template-columns: repeat(${map.columns}, 1fr)` });
  let current = 0;
  const choose = (index) => {
    grid.children[current].removeAttribute("aria-current");
    grid.children[current].tabIndex = -1;
    current = index;
    grid.children[current].setAttribute("aria-current", "true");
    grid.children[current].tabIndex = 0;
    showUnit(map, map.units[index]);
  };
  grid.append(...map.units.map((unit, index) => {
    const label = `row ${unit.row}, column ${unit.column}: ` +
      (unit.hits ? `${unit.hits} samples, most of class ${map.classes[unit.majority]}` : "no samples");
    const button = element("button", { type: "button", tabIndex: -1, "aria-label": label });
    button.addEventListener("pointerenter", () => choose(index));
    button.addEventListener("focus", () => choose(index));
    return button;
  }));
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const { row, column } = map.units[current];
    const move = (from, by, size) => (map.torus ? (from + by + size) % size : Math.max(0, Math.min(size - 1, from + by)));
    grid.children[move(row, step[0], map.rows) * map.columns + move(column, step[1], map.columns)].focus();
  });
  view.querySelector(".units")?.remove();
  view.append(grid);
  const draw = () => {
    const layer = document.querySelector("#map-layer input:checked").value;
    drawMap(map, layer, canvas);
    drawKey(map, layer);
  };
  document.getElementById("map-layer").onchange = draw;
  draw();
  choose(map.units.findIndex((unit) => unit.hits === map.most));
}

const mapChoice = document.getElementById("map-choice");
if (mapChoice) {
  mapChoice.addEventListener("change", () => showMap(mapChoice.value));
  showMap(mapChoice.value);
}
