"use strict";
// What the views of maps share: the archives they read, their colours, and the units one can point at or walk over.

/** Arrays of the file of results/maps that the page holds in the script with this attribute, a NumPy archive. */
function pageArchive(attribute, key) {
  const text = document.querySelector(`script[data-${attribute}="${key}"]`).textContent;
  return readArchive(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
}

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
  const kinds = { "|u1": Uint8Array, "|b1": Uint8Array, "<u2": Uint16Array, "<i2": Int16Array, "<u4": Uint32Array, "<f4": Float32Array, "<f8": Float64Array, "<i8": BigInt64Array };
  const values = new kinds[type](content);
  return { shape, values: type === "<i8" ? Array.from(values, Number) : values };
}

const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });
const count = (value) => value.toLocaleString("en");
const scale = data.colours.scale;
const shade = (share) => scale[Math.round(Math.max(0, Math.min(1, share || 0)) * (scale.length - 1))];
const classColour = (map, index) =>
  map.classes.length <= data.colours.classes.length ? data.colours.classes[index] : shade(index / (map.classes.length - 1));
const gradient = (colours) => element("span", { className: "scale", style: `background: linear-gradient(90deg, ${colours.join()})` });

/** How often each class occurs among what a unit wins. */
function classTable(map, unit, label) {
  const total = unit.counts.reduce((sum, one) => sum + one, 0);
  const bars = map.classes.map((name, index) => {
    const width = total ? (100 * unit.counts[index]) / Math.max(...unit.counts) : 0;
    const bar = element("span", { className: "bar", style: `width: ${width}%; background: ${classColour(map, index)}` });
    return element("tr", {}, element("td", {}, name), element("td", {}, unit.counts[index] ? bar : ""),
      element("td", { className: "numeric" }, unit.counts[index] ? count(unit.counts[index]) : ""));
  });
  const many = map.classes.length > data.colours.classes.length ? "many" : "";
  return element("table", { "aria-label": label, className: many }, element("tbody", {}, ...bars));
}

/** Buttons over the units of a map, for pointer and arrow keys; returns a function that chooses one. */
function layUnits(view, map, labelOf, chosen) {
  const grid = element("div", { className: "units", style: `grid-template-columns: repeat(${map.columns}, 1fr)` });
  let current = 0;
  const choose = (index) => {
    grid.children[current].removeAttribute("aria-current");
    grid.children[current].tabIndex = -1;
    current = index;
    grid.children[current].setAttribute("aria-current", "true");
    grid.children[current].tabIndex = 0;
    chosen(map.units[index], index);
  };
  grid.append(...map.units.map((unit, index) => {
    const label = `row ${unit.row}, column ${unit.column}: ${labelOf(unit)}`;
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
  return choose;
}
