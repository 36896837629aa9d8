/* Charts as SVG, each with a title, and with its numbers in a table behind it. */

const colour = (place) => `c${place % 6}`;

function ticks(low, high, count = 4) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) found.push(Number(value.toPrecision(10)));
  return found;
}

const short = (value, digits = 3) => (value === 0 ? "0" : Math.abs(value) < 0.001 || Math.abs(value) >= 1e5 ? value.toExponential(digits - 3) : String(Number(value.toPrecision(digits)))).replace(/^-/, "−");

// The labels of an axis, with as many digits as tell them apart.
function labels(values) {
  let digits = 3;
  while (digits < 10 && new Set(values.map((value) => short(value, digits))).size < values.length) digits++;
  return values.map((value) => [value, short(value, digits)]);
}

function figure(title, sub, drawing, numbers) {
  return el("figure", {},
    el("figcaption", {}, visible(title), sub ? el("small", {}, visible(sub)) : null),
    drawing,
    numbers ? el("details", {}, el("summary", {}, "Table"), numbers) : null);
}

function legend(names) {
  return el("ul", { class: "legend" }, ...names.map((name, place) => el("li", {}, el("span", { class: `chip ${colour(place)}`, "aria-hidden": "true" }), visible(name))));
}

function smooth(values) {
  return values.map((_, place) => {
    const window = values.slice(Math.max(0, place - 2), place + 3);
    return window.reduce((sum, value) => sum + value, 0) / window.length;
  });
}

/* series: [{name, place, x, y}] */
function lineChart(title, series) {
  const width = 340, height = 190, left = 44, right = 8, top = 8, bottom = 24;
  const xs = series.flatMap((one) => one.x), ys = series.flatMap((one) => one.y);
  let [low, high] = [Math.min(...ys), Math.max(...ys)];
  if (low >= 0 && low < 0.6 * high) low = 0;
  if (low === high && low === 0) high = 1;
  else if (low === high) [low, high] = [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const X = (value) => left + ((width - left - right) * (last > first ? value - first : 0.5)) / (last - first || 1);
  const Y = (value) => height - bottom - ((height - top - bottom) * (value - low)) / (high - low);
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${series.map((one) => `${one.name} from ${format(one.y[0])} to ${format(one.y.at(-1))} in ${one.x.length} updates`).join("; ")}` });
  for (const [value, label] of labels(ticks(low, high))) {
    made.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: Y(value), y2: Y(value) }));
    made.append(svg("text", { x: left - 5, y: Y(value) + 4, "text-anchor": "end" }, label));
  }
  for (const [value, label] of labels(last > first ? ticks(first, last).filter(Number.isInteger) : [first])) made.append(svg("text", { x: X(value), y: height - 8, "text-anchor": "middle" }, label));
  for (const one of series) {
    const path = (values) => values.map((value, place) => `${place ? "L" : "M"}${X(one.x[place]).toFixed(1)},${Y(value).toFixed(1)}`).join("");
    const many = one.x.length >= 10;
    if (many) made.append(svg("path", { class: `raw ${colour(one.place)}`, d: path(one.y) }));
    made.append(svg("path", { class: `curve ${colour(one.place)}`, d: path(many ? smooth(one.y) : one.y) }));
    if (!many) one.x.forEach((x, place) => made.append(svg("circle", { class: `dot ${colour(one.place)}`, cx: X(x), cy: Y(one.y[place]), r: 2.5 }, svg("title", {}, `${plain(one.name)}, update ${x}: ${format(one.y[place])}`))));
  }
  const steps = [...new Set(xs)].sort((a, b) => a - b);
  const maps = series.map((one) => new Map(one.x.map((x, place) => [x, one.y[place]])));
  const build = () => table(["update", ...series.map((one) => one.name)], steps.map((x) => [String(x), ...maps.map((map) => format(map.get(x)))]));
  return lazyTable(figure(title, null, made), build);
}

/* A table with many rows is made when it is opened. */
function lazyTable(made, build) {
  const details = el("details", {}, el("summary", {}, "Table"));
  details.addEventListener("toggle", () => { if (details.open && details.childElementCount === 1) details.append(build()); });
  made.append(details);
  return made;
}

/* rows: [{name, value: [mean, low, high], place}] */
function intervalChart(title, sub, rows, unit, show = format) {
  const width = 540, label = 190, right = 156, line = 24, top = 4;
  const height = top + line * rows.length + 22;
  const ends = rows.flatMap((row) => row.value).filter((value) => value !== null);
  let [low, high] = unit ? [0, 1] : [Math.min(0, ...ends), Math.max(0, ...ends)];
  if (low === high) high = low + 1;
  const X = (value) => label + ((width - label - right) * (value - low)) / (high - low);
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${rows.map((row) => `${row.name} ${interval(row.value, show)}`).join("; ")}` });
  for (const [value, text] of labels(ticks(low, high, 4))) {
    made.append(svg("line", { class: "axis", x1: X(value), x2: X(value), y1: top, y2: height - 20 }));
    made.append(svg("text", { x: X(value), y: height - 6, "text-anchor": "middle" }, text));
  }
  rows.forEach((row, place) => {
    const y = top + line * place + line / 2, [mean, from, to] = row.value, name = plain(row.name);
    made.append(svg("text", { class: "strong", x: label - 8, y: y + 4, "text-anchor": "end" }, name.length > 31 ? `${name.slice(0, 30)}…` : name, svg("title", {}, name)));
    if (from !== null && from !== undefined) made.append(svg("line", { class: `whisker ${colour(row.place ?? 0)}`, x1: X(from), x2: X(to), y1: y, y2: y }));
    made.append(svg("circle", { class: `dot ${colour(row.place ?? 0)}`, cx: X(mean), cy: y, r: 4 }));
    made.append(svg("text", { class: "strong", x: width - right + 12, y: y + 4 }, interval(row.value, show)));
  });
  return figure(title, sub, made, table(["", "mean [95 % interval]", ...(rows.some((row) => row.note) ? ["note"] : [])], rows.map((row) => [row.name, interval(row.value, show), ...(rows.some((one) => one.note) ? [row.note || ""] : [])])));
}

/* gaps: what histogram.py made */
function histogramChart(title, gaps) {
  const width = 420, height = 190, left = 40, right = 8, top = 18, bottom = 30;
  const { edges, counts, threshold } = gaps, most = Math.max(...counts), bar = (width - left - right) / counts.length;
  const Y = (value) => height - bottom - ((height - top - bottom) * value) / most;
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${gaps.n} gaps, mean ${interval(gaps.mean)}${gaps.below ? `, share below the threshold ${threshold}: ${interval(gaps.below)}` : ""}` });
  for (const value of ticks(0, most, 3).filter(Number.isInteger)) {
    made.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: Y(value), y2: Y(value) }));
    made.append(svg("text", { x: left - 5, y: Y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  counts.forEach((count, place) => {
    const near = threshold !== null && edges[place] < threshold;
    if (count) made.append(svg("rect", { class: threshold === null || near ? "near" : "far", x: left + bar * place + 0.5, y: Y(count), width: Math.max(bar - 1, 1), height: height - bottom - Y(count) }, svg("title", {}, `${short(edges[place])} to ${short(edges[place + 1])}: ${count}`)));
  });
  const border = threshold === null ? -1 : edges.findIndex((edge) => edge === threshold);
  edges.forEach((edge, place) => {
    const labelled = border < 0 ? place % 4 === 0 : ((place - border) % 4 === 0 && place > 1) || place === 0;
    if (labelled) made.append(svg("text", { x: left + bar * place, y: height - 14, "text-anchor": "middle" }, short(edge)));
  });
  made.append(svg("text", { x: (left + width - right) / 2, y: height - 1, "text-anchor": "middle" }, border < 0 ? "gap" : "gap, in steps of √2"));
  if (border >= 0) {
    const x = left + bar * border;
    made.append(svg("line", { class: "threshold", x1: x, x2: x, y1: 4, y2: height - bottom }));
    made.append(svg("text", { class: "strong", x: x + 5, y: 12 }, `τ = ${short(threshold)}`));
  }
  const sub = `${plural(gaps.n, "gap")}, mean ${interval(gaps.mean)}${gaps.below ? `; below τ: ${interval(gaps.below)}` : ""}`;
  return figure(title, sub, made, table(["from", "to", "gaps"], counts.map((count, place) => [short(edges[place]), short(edges[place + 1]), String(count)])));
}

/* The number of steps that the expert still needs in each state, against what is left of the budget. */
function leftChart(left, budget, fatal) {
  const width = 620, height = 130, from = 34, right = 8, top = 8, bottom = 24, last = left.length - 1;
  const high = Math.max(1, budget ?? 0, ...left.filter((value) => value !== null));
  const X = (place) => from + ((width - from - right) * place) / (last || 1);
  const Y = (value) => height - bottom - ((height - top - bottom) * value) / high;
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Steps that the expert still needs in each state" });
  for (const [value, label] of labels(ticks(0, high, 3))) {
    made.append(svg("line", { class: "axis", x1: from, x2: width - right, y1: Y(value), y2: Y(value) }));
    made.append(svg("text", { x: from - 5, y: Y(value) + 4, "text-anchor": "end" }, label));
  }
  for (const value of ticks(0, last, 8).filter(Number.isInteger)) made.append(svg("text", { x: X(value), y: height - 8, "text-anchor": "middle" }, String(value)));
  if (budget) made.append(svg("path", { class: "raw c5", d: `M${X(0)},${Y(budget)}L${X(last)},${Y(Math.max(0, budget - last))}` }));
  let path = "", pen = "M";
  left.forEach((value, place) => {
    if (value === null) { pen = "M"; return; }
    path += `${pen}${X(place).toFixed(1)},${Y(value).toFixed(1)}`;
    pen = "L";
    made.append(svg("circle", { class: "dot c0", cx: X(place), cy: Y(value), r: 2 }, svg("title", {}, `after step ${place}: ${value} steps`)));
  });
  made.append(svg("path", { class: "curve c0", d: path }));
  if (fatal) made.append(svg("line", { class: "threshold", x1: X(fatal), x2: X(fatal), y1: top, y2: height - bottom }));
  const numbers = table(["after step", "expert needs"], left.map((value, place) => [String(place), value === null ? "more than is left" : String(value)]));
  return figure("Steps that the expert still needs", "by the number of actions played; the thin line is what is left of the budget", made, numbers);
}
