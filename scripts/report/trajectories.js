"use strict";
// Ways over a map of hours, and Lorenz’ attractor in the colours of such a map.

const SVG = "http://www.w3.org/2000/svg";
function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Units with what is known of them, and the ways of the chosen stays. */
async function readWays(key) {
  const arrays = await pageArchive("trajectories", key);
  const list = (name) => [...arrays[name].values];
  const [rows, columns] = list("map_size"), classes = list("classes"), size = rows * columns;
  const rowsOf = (name, width) =>
    Array.from({ length: width ? arrays[name].values.length / width : 0 }, (_, at) => [...arrays[name].values.subarray(at * width, (at + 1) * width)]);
  const counts = rowsOf("counts", classes.length), means = rowsOf("means", 3), distances = list("u_matrix"), hits = list("hits"), stays = list("stays");
  const units = hits.map((won, unit) => ({
    row: Math.floor(unit / columns), column: unit % columns, hits: won, stays: stays[unit], counts: counts[unit], distance: distances[unit],
    means: list("quantities").map((_, which) => means[which * size + unit]),
  }));
  const pathUnits = list("path_units"), pathLabels = list("path_labels"), deaths = list("deaths");
  const channels = list("channels"), pathPoints = rowsOf("path_points", channels.length);
  let passed = 0;
  const paths = list("lengths").map((length, stay) => {
    const part = (values) => values.slice(passed, passed + length);
    const path = { units: part(pathUnits), labels: part(pathLabels), points: part(pathPoints), death: deaths[stay] };
    passed += length;
    return path;
  });
  return {
    key, rowsAre: channels.length ? "points" : "hours", rows, columns, torus: Boolean(arrays.torus.values[0]), classes, units, paths, channels, label: list("label")[0],
    quantities: list("quantities"), time: list("time")[0], step: list("step")[0],
    points: rowsOf("points", channels.length), pointUnits: list("point_units"),
  };
}

/** Hue by row, lightness by column: neighbours look alike. */
function ownColour(map, { row, column }) {
  const hue = (6 * 0.85 * row) / map.rows, value = 0.35 + (0.6 * column) / Math.max(map.columns - 1, 1);
  const part = (n) => 255 * value * (1 - 0.8 * Math.max(0, Math.min((n + hue) % 6, 4 - ((n + hue) % 6), 1)));
  return `rgb(${[5, 3, 1].map(part).map(Math.round).join()})`;
}

/** What units can be coloured by: a title, a value of a unit (NaN: none), and its colour. */
function waysLayers(map) {
  const scaled = (title, value) => {
    const values = map.units.map(value).filter((one) => !Number.isNaN(one));
    const [least, greatest] = [Math.min(...values), Math.max(...values)];
    const colour = (unit) => (Number.isNaN(value(unit)) ? null : shade((value(unit) - least) / (greatest - least)));
    return { title, colour, key: [`${title}: ${number(least)}`, gradient(scale), number(greatest)] };
  };
  const own = { title: "each unit its own", colour: (unit) => (unit.hits ? ownColour(map, unit) : null), key: ["Rows differ in hue, columns in lightness."] };
  return [
    ...(map.points.length ? [own] : []),
    ...map.quantities.map((title, which) => scaled(title, (unit) => unit.means[which][0])),
    scaled(`${map.rowsAre} won`, (unit) => unit.hits || NaN),
    scaled("U-matrix", (unit) => unit.distance),
  ];
}

function pathTitle(map, path, index) {
  const known = path.labels.filter((label) => label >= 0), name = String.fromCharCode(65 + index);
  const ends = Number.isNaN(path.death) ? "" : path.death ? "died, " : "survived, ";
  if (!known.length) return `${name}: ${ends}no ${map.label}`;
  const moves = known.filter((label, at) => at && label !== known[at - 1]).length;
  const range = map.classes[0] === "0"
    ? `${map.label} ${Math.min(...known)} to ${Math.max(...known)}` : `${moves} ${moves === 1 ? "change" : "changes"} of ${map.label}`;
  return `${name}: ${ends}${range}`;
}

/** Where each step lies: around the middle of its unit, the later the farther, so that long rests can be seen. */
function places(map, path) {
  const visits = new Map();
  return path.units.map((unit) => {
    const visit = visits.get(unit) ?? 0, radius = Math.min(0.42, 0.075 * Math.sqrt(visit));
    visits.set(unit, visit + 1);
    return [map.units[unit].column + 0.5 + radius * Math.cos(2.4 * visit), map.units[unit].row + 0.5 + radius * Math.sin(2.4 * visit)];
  });
}

const timeColour = (share) => data.colours.time[Math.round(share * (data.colours.time.length - 1))];

/** The way as shapes; on a torus the shorter way, which may leave the picture and come in again. */
function wayShapes(map, path, now) {
  const at = places(map, path), last = at.length - 1, extent = [map.columns, map.rows], lines = [], dots = [];
  at.forEach((place, step) => {
    const colour = timeColour(step / Math.max(last, 1)), later = step > now ? "later" : "";
    if (step < last) {
      const way = [0, 1].map((axis) => {
        const straight = at[step + 1][axis] - place[axis];
        return map.torus ? straight - extent[axis] * Math.round(straight / extent[axis]) : straight;
      });
      const from = [place, at[step + 1].map((end, axis) => end - way[axis])];
      const twice = from[0].some((start, axis) => Math.abs(start - from[1][axis]) > 1e-9);
      for (const [x, y] of twice ? from : from.slice(0, 1)) {
        lines.push(shape("line", { x1: x, y1: y, x2: x + way[0], y2: y + way[1], stroke: colour, class: step >= now ? "later" : "" }));
      }
    }
    dots.push(shape("circle", { cx: place[0], cy: place[1], r: map.columns / 290, fill: colour, class: later }));
  });
  const [x, y] = at[now];
  const casing = lines.map((line) => line.cloneNode());
  casing.forEach((line) => line.classList.add("casing"));
  const size = map.columns / 80, [left, upper] = at[last].map((middle) => middle - 0.9 * size);
  return [
    ...casing, ...lines, ...dots,
    shape("circle", { cx: at[0][0], cy: at[0][1], r: size, class: "end" }),
    shape("rect", { x: left, y: upper, width: 1.8 * size, height: 1.8 * size, class: "end" }),
    shape("circle", { cx: x, cy: y, r: 0.65 * size, class: "now" }),
  ];
}

function drawWays(map, layer, path, now, svg) {
  svg.setAttribute("viewBox", `0 0 ${map.columns} ${map.rows}`);
  svg.replaceChildren(
    ...map.units.map((unit) => {
      const colour = layer.colour(unit), { row, column } = unit;
      return colour
        ? shape("rect", { x: column, y: row, width: 1, height: 1, fill: colour })
        : shape("path", { d: `M${column + 0.15},${row + 0.85}l.7,-.7`, class: "empty" });
    }),
    ...(path ? wayShapes(map, path, now) : []),
  );
}

/** The label of a stay over time, and the mean label of the units it is in. */
function drawTime(map, path, now, svg) {
  const [width, height, left, bottom] = [svg.clientWidth, 130, 34, 22], last = Math.max(path.units.length - 1, 1);
  const means = path.units.map((unit) => map.units[unit].means[0][0]);
  const top = Math.max(1, ...path.labels, ...means.filter((mean) => !Number.isNaN(mean)));
  const x = (step) => left + ((width - left - 8) * step) / last, y = (value) => 8 + (height - bottom - 8) * (1 - value / top);
  const steps = (values) => values.reduce((way, value, step) => {
    if (Number.isNaN(value) || value < 0) return way;
    const half = (x(1) - x(0)) / 2;
    return `${way}${way ? "L" : "M"}${x(step) - half},${y(value)}H${x(step) + half}`;
  }, "");
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * last));
  const words = (value) => (map.classes[0] === "0" ? number(value) : map.classes[value]?.split(" ")[0] ?? "");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(
    ...[0, top].flatMap((value) => [
      shape("line", { x1: left, x2: width - 8, y1: y(value), y2: y(value), class: "grid" }),
      shape("text", { x: left - 5, y: y(value) + 3.5, "text-anchor": "end" }, words(value)),
    ]),
    ...ticks.map((step) => shape("text", { x: x(step), y: height - 6, "text-anchor": "middle" }, number(step * map.step))),
    shape("path", { d: steps(means), class: "line theirs" }),
    shape("path", { d: steps(path.labels), class: "line validation" }),
    shape("line", { x1: x(now), x2: x(now), y1: 8, y2: height - bottom, class: "cursor" }),
  );
}

/** Points seen from the side, turned by `angle` degrees; those of one unit stand out. */
function drawAttractor(map, layer, path, now, chosen, angle, canvas) {
  const side = canvas.clientWidth, fine = devicePixelRatio || 1;
  Object.assign(canvas, { width: side * fine, height: 0.8 * side * fine });
  const context = canvas.getContext("2d"), ink = getComputedStyle(canvas).color;
  context.scale(fine, fine);
  const [sin, cos] = [Math.sin, Math.cos].map((turn) => turn((angle * Math.PI) / 180));
  const zoom = (0.48 * side) / Math.max(...map.points.map(([x, y]) => Math.hypot(x, y)));
  const seen = ([x, y, z]) => {
    const deep = x * sin + y * cos;
    return [0.5 * side + zoom * (x * cos - y * sin), 0.4 * side - zoom * (z + 0.1 * deep), deep];
  };
  const dot = ([x, y], radius) => {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
  };
  const colours = map.units.map((unit) => layer.colour(unit) ?? "#888");
  const points = map.points.map((point, index) => ({ at: seen(point), unit: map.pointUnits[index] }));
  context.globalAlpha = path ? 0.55 : 1;
  for (const { at, unit } of points.sort((a, b) => b.at[2] - a.at[2])) {
    context.fillStyle = colours[unit];
    dot(at, 1.7);
    context.fill();
  }
  context.globalAlpha = 1;
  context.strokeStyle = ink;
  for (const { at, unit } of points.filter((point) => point.unit === chosen)) {
    context.fillStyle = colours[unit];
    dot(at, 3.2);
    context.fill();
    context.stroke();
  }
  if (!path) return;
  const way = path.points.map(seen);
  context.lineCap = "round";
  for (const casing of [true, false]) {
    context.lineWidth = casing ? 4.5 : 2.2;
    for (let step = 0; step + 1 < way.length; step++) {
      context.globalAlpha = step < now ? 1 : 0.2;
      context.strokeStyle = casing ? "#fff" : timeColour(step / (way.length - 1));
      context.beginPath();
      context.moveTo(...way[step].slice(0, 2));
      context.lineTo(...way[step + 1].slice(0, 2));
      context.stroke();
    }
  }
  context.globalAlpha = context.lineWidth = 1;
  context.strokeStyle = ink;
  context.fillStyle = "#fff";
  dot(way[now], 5);
  context.fill();
  context.stroke();
}

function showHours(map, unit) {
  const named = (number, [one, several]) => `${count(number)} ${number === 1 ? one : several}`;
  const words = map.channels.length ? [["point", "points"], ["trajectory", "trajectories"]] : [["hour", "hours"], ["stay", "stays"]];
  const share = map.quantities.map((title, which) => {
    const [mean, low, high] = unit.means[which];
    return element("li", {}, `${title}: ${number(mean)}`, Number.isNaN(low) ? "" : element("span", { className: "quiet" }, ` [${number(low)}, ${number(high)}]`));
  });
  document.getElementById("ways-unit").replaceChildren(
    element("h3", {}, `Unit in row ${unit.row}, column ${unit.column}`),
    element("p", {}, unit.hits ? `wins ${named(unit.hits, words[0])} of ${named(unit.stays, words[1])}` : "wins nothing",
      Number.isNaN(unit.distance) ? "" : `; ${number(unit.distance)} from its neighbours`),
    ...(unit.hits ? [element("ul", {}, ...share), element("p", { className: "quiet" }, `${map.rowsAre} by ${map.label}`)] : []),
    classTable(map, unit, `${map.rowsAre} by ${map.label}`),
  );
}

let latestWays;

async function showWays(key) {
  latestWays = key;
  const map = await readWays(key), layers = waysLayers(map);
  if (latestWays !== key) return; // others were asked for meanwhile
  const find = (selector) => document.querySelector(`#trajectories ${selector}`);
  const [view, svg, time, attractor] = [find("#ways-view"), find("#ways-view svg"), find("#ways-time"), find("#attractor")];
  const [follow, turn, pathChoice] = [time.querySelector("input"), attractor.querySelector("input"), find("#ways-path")];
  const chosen = { unit: 0 };
  const layerChoice = find("#ways-layer");
  layerChoice.replaceChildren(layerChoice.querySelector("legend"), ...layers.map((layer, index) =>
    element("label", {}, element("input", { type: "radio", name: "ways-layer", value: String(index), checked: !index }), ` ${layer.title}`)));
  pathChoice.replaceChildren(...map.paths.map((path, index) => element("option", { value: String(index) }, pathTitle(map, path, index))),
    element("option", { value: "" }, "none"));
  pathChoice.value = String(Math.max(map.paths.length - 1, 0));
  attractor.hidden = !map.points.length;
  const path = () => map.paths[pathChoice.value === "" ? -1 : Number(pathChoice.value)];
  const layer = () => layers[Number(layerChoice.querySelector("input:checked").value)];
  const now = () => Number(follow.value);
  const drawPoints = () => map.points.length && drawAttractor(map, layer(), path(), now(), chosen.unit, Number(turn.value), attractor.querySelector("canvas"));
  const choose = layUnits(view, map, (unit) => (unit.hits ? `${map.quantities[0]} ${number(unit.means[0][0])}` : "wins nothing"), (unit, index) => {
    chosen.unit = index;
    showHours(map, unit);
    drawPoints();
  });
  const draw = () => {
    const shown = path();
    drawWays(map, layer(), shown, now(), svg);
    const legend = shown ? [element("br"), "Way: first ○", gradient(data.colours.time), "■ last"] : [];
    find("#ways-key").replaceChildren(...layer().key.map((part) => part.cloneNode?.(true) ?? part), ...legend,
      ...(map.torus ? [element("br"), "Opposite edges are neighbours."] : []));
    time.hidden = !shown;
    if (shown) {
      drawTime(map, shown, now(), time.querySelector("svg"));
      const unit = map.units[shown.units[now()]], label = shown.labels[now()];
      const text = `${map.time} ${number(now() * map.step)}: row ${unit.row}, column ${unit.column}; ` +
        `${map.label} ${label < 0 ? "not known" : map.classes[label]}`;
      time.querySelector("output").textContent = text;
      follow.setAttribute("aria-valuetext", text);
      time.querySelector("p").replaceChildren(element("span", { className: "swatch validation" }), ` ${map.label} of this trajectory`,
        element("span", { className: "swatch theirs" }), ` ${map.quantities[0]} of its unit`);
    }
    drawPoints();
  };
  const start = () => {
    const shown = path();
    follow.max = String(shown ? shown.units.length - 1 : 0);
    follow.value = follow.max;
    draw();
    if (shown) choose(shown.units[now()]);
  };
  layerChoice.onchange = draw;
  pathChoice.onchange = start;
  follow.oninput = () => {
    draw();
    choose(path().units[now()]);
  };
  turn.oninput = drawPoints;
  attractor.querySelector("canvas").onpointermove = (event) => {
    if (!event.buttons) return;
    turn.value = String(Number(turn.value) + Math.round(event.movementX / 2));
    drawPoints();
  };
  onresize = draw;
  matchMedia("(prefers-color-scheme: dark)").onchange = drawPoints;
  start();
}

const waysChoice = document.getElementById("ways-choice");
if (waysChoice) {
  waysChoice.addEventListener("change", () => showWays(waysChoice.value));
  showWays(waysChoice.value);
}
