"use strict";
/* Elements, texts that are shown and never run, and the stored parts. */

const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/* Characters that are not seen, or reorder what is: control and format characters, lone halves of surrogate pairs. */
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

function visible(text) {
  const made = document.createDocumentFragment();
  let last = 0;
  for (const found of text.matchAll(UNSEEN)) {
    made.append(text.slice(last, found.index));
    const code = found[0].charCodeAt(0).toString(16).padStart(4, "0");
    made.append(el("span", { class: "escape" }, `\\u${code}`));
    last = found.index + found[0].length;
  }
  made.append(text.slice(last));
  return made;
}

const plain = (text) => text.replace(UNSEEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

const MOST_SHOWN = 6000;

function textBlock(text, draw = visible) {
  const block = el("div", { class: "text", dir: "auto" });
  if (text === "") {
    block.append(el("span", { class: "faint" }, "(empty)"));
  } else if (text.length <= MOST_SHOWN) {
    block.append(draw(text));
  } else {
    const more = el("button", { type: "button", class: "no-print" }, `Show all ${text.length.toLocaleString("en")} characters`);
    more.addEventListener("click", () => block.replaceChildren(visible(text)));
    block.append(visible(text.slice(0, MOST_SHOWN)), "… ", more);
  }
  return block;
}

const format = (value, digits = 3) =>
  value === null || value === undefined ? "–" : digits === 3 && Number.isInteger(value) && Math.abs(value) >= 10 ? String(value)
    : (Math.abs(value) < 0.0005 && value !== 0 ? value.toExponential(1) : value.toFixed(digits)).replace(/^-/, "−");
const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}%`);
const signed = (value, digits = 3) => `${value > 0 ? "+" : ""}${format(value, digits)}`;
const interval = (value, show = format) =>
  value[1] === null || value[1] === undefined ? show(value[0]) : `${show(value[0])} [${show(value[1])}, ${show(value[2])}]`;
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

const NUMBER = /^([+\-−]?[\d.,]+(e[+-]\d+)?%?( \[.*\])?|–)$/;

function table(heads, rows, caption) {
  const side = heads.map((_, place) => (rows.every((row) => typeof row[place] === "string" && NUMBER.test(row[place])) ? "number" : undefined));
  const inside = (value) => (typeof value === "string" ? visible(value) : value);
  const cell = (value, place) => el(place ? "td" : "th", { class: side[place], scope: place ? undefined : "row" }, inside(value));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption || heads.filter(Boolean).join(", ") },
    el("table", {},
      caption ? el("caption", {}, visible(caption)) : null,
      el("thead", {}, el("tr", {}, ...heads.map((head, place) => el("th", { scope: "col", class: side[place] }, visible(head))))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell))))));
}

/* What is stored beside the lines of the list: compressed parts, opened when an episode of theirs is asked for. */
const KEPT = 12;
const opened = new Map();

async function openPart(name) {
  if (!opened.has(name)) {
    const bytes = Uint8Array.from(atob($(name).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    opened.set(name, new Response(stream).text().then(JSON.parse));
    if (opened.size > KEPT) opened.delete(opened.keys().next().value);
  }
  return opened.get(name);
}

async function openEpisode(run, line) {
  const part = await openPart(`part-${run}-${line.part}`);
  const found = part.episodes.find((episode) => episode.number === line.number);
  const text = (place) => (place === undefined ? null : part.texts[place]);
  const steps = found.steps.map((step) => ({
    number: step.n, observation: text(step.o), action: text(step.a), answer: text(step.s), prediction: text(step.p),
    thought: text(step.t), written: text(step.w), shown: step.m ? step.m.map(text).join("\n") : null,
    gap: step.g ?? null, gapReward: step.gr ?? null, reward: step.r, invalid: !!step.i, inefficient: !!step.e,
    role: step.role || "", tokens: step.tokens, seconds: step.sec,
  }));
  return { ...found, line, steps };
}
