"use strict";
// The view of a trained map of pictures.

/** What the page shows of a map: per unit its pictures, hits, counts, distance and nearest samples. */
async function readMap(key) {
  const arrays = await pageArchive("map", key);
  const [rows, columns] = arrays.map_size.values, classes = arrays.classes.values, kept = arrays.nearest.shape[1];
  const decoded = await mosaic(arrays.decoded.values), samples = await mosaic(arrays.nearest_samples.values);
  const height = decoded.canvas.height / rows, width = decoded.canvas.width / columns;
  const picture = (context, row, column) => context.getImageData(column * width, row * height, width, height);
  const units = Array.from({ length: rows * columns }, (_, unit) => {
    const row = Math.floor(unit / columns), column = unit % columns;
    const counts = [...arrays.counts.values.subarray(unit * classes.length, (unit + 1) * classes.length)];
    const nearest = arrays.nearest.values.slice(unit * kept, (unit + 1) * kept).filter((number) => number >= 0);
    return {
      row, column, counts, hits: counts.reduce((sum, one) => sum + one, 0),
      majority: counts.indexOf(Math.max(...counts)), distance: arrays.u_matrix.values[unit],
      decoded: picture(decoded, row, column),
      samples: nearest.map((number, rank) => ({ number, picture: picture(samples, row, column * kept + rank) })),
    };
  });
  return { key, rows, columns, torus: Boolean(arrays.torus.values[0]), classes, units, height, width };
}

/** A canvas' context with the picture of an image file on it. */
async function mosaic(bytes) {
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/webp" }));
  const canvas = element("canvas", { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context;
}

function drawPicture(map, picture) {
  const canvas = element("canvas", { width: map.width, height: map.height });
  canvas.getContext("2d").putImageData(picture, 0, 0);
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
  if (layer === "labels") {
    const items = map.classes.map((name, index) =>
      element("li", {}, element("span", { className: "class", style: `background: ${classColour(map, index)}` }), name));
    key.replaceChildren(element("ul", {}, ...items), "Colour: the most frequent class; area: its share of the unit’s samples.");
  } else if (layer === "hits") {
    key.replaceChildren("samples won: 0", gradient(scale), count(map.most));
  } else {
    const what = layer === "distances" ? "distance" : "frame: distance";
    key.replaceChildren(`${what} to neighbours ${number(map.least)}`, gradient(scale), number(map.greatest));
  }
  if (map.torus) key.append(element("br"), "Opposite edges are neighbours.");
}

function showUnit(map, unit) {
  const picture = (values, caption) => {
    const canvas = drawPicture(map, values);
    return element("figure", {}, canvas, element("figcaption", {}, caption));
  };
  document.getElementById("unit").replaceChildren(
    element("h3", {}, `Unit in row ${unit.row}, column ${unit.column}`),
    element("div", { className: "pictures" }, picture(unit.decoded, "prototype"),
      ...unit.samples.map((sample, rank) => picture(sample.picture, rank ? `next, no. ${sample.number}` : `nearest, no. ${sample.number}`))),
    element("p", {}, unit.hits ? `wins ${count(unit.hits)} ${unit.hits === 1 ? "sample" : "samples"}` : "wins no sample",
      Number.isNaN(unit.distance) ? "" : `; ${number(unit.distance)} from its neighbours`),
    classTable(map, unit, "samples by class"),
  );
}

let latestMap;

async function showMap(key) {
  latestMap = key;
  const map = await readMap(key);
  if (latestMap !== key) return; // another was asked for meanwhile
  const distances = map.units.map((unit) => unit.distance).filter((value) => !Number.isNaN(value));
  map.least = Math.min(...distances);
  map.greatest = Math.max(...distances);
  map.most = Math.max(...map.units.map((unit) => unit.hits));
  const view = document.getElementById("map-view"), canvas = view.querySelector("canvas");
  const label = (unit) => (unit.hits ? `${unit.hits} samples, most of class ${map.classes[unit.majority]}` : "no samples");
  const choose = layUnits(view, map, label, (unit) => showUnit(map, unit));
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
