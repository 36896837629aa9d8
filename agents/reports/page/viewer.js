/* The list of episodes, its filters, and the episode that is chosen. */

const ROW = 56, MARGIN = 8, MOST_STEPS = 120;

function showTrajectories(data) {
  const lines = data.evaluations.flatMap((run, place) => run.episodes.map((line) => ({ ...line, run, place })));
  if (!lines.length) return;
  $("trajectories").hidden = false;
  for (const run of data.evaluations) run.worst = run.episodes.reduce((most, line) => Math.max(most, line.worst ?? 0), 0);
  if (data.notes.length) $("filters").before(...data.notes.map((note) => el("p", { class: "notice" }, visible(note))));
  if (data.evaluations.some((run) => !run.fatal && run.episodes.some((line) => line.outcome === "failed"))) $("filters").before(el("p", { class: "note" }, "First fatal steps were not asked for (--no-fatal)."));
  const state = { shown: [], chosen: null, token: 0, prefix: commonFolder(lines.map((line) => line.game)) };
  const inputs = makeFilters(data, lines, () => filter(lines, inputs, state));
  const box = $("episodes"), rows = el("div", { class: "rows", role: "presentation" });
  box.append(rows);
  state.draw = () => drawRows(box, rows, state);
  let waiting = false;
  box.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; state.draw(); });
  });
  box.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(box.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 };
    if (event.key in moves && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      move(state, moves[event.key]);
    } else if (event.key === "Enter") {
      event.preventDefault();
      $("episode").focus();
    }
  });
  rows.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) choose(state, Number(row.dataset.place));
  });
  addEventListener("resize", state.draw);
  filter(lines, inputs, state);
}

/* The length of the folders that the names of all games begin with. */
function commonFolder(names) {
  let common = names[0].slice(0, names[0].lastIndexOf("/") + 1);
  for (const name of names) while (!name.startsWith(common)) common = common.slice(0, common.lastIndexOf("/", common.length - 2) + 1);
  return common.length;
}

function makeFilters(data, lines, changed) {
  const form = $("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  const select = (label, options) => {
    const made = el("select", {}, ...options.map(([value, text]) => el("option", { value }, plain(text))));
    made.addEventListener("change", changed);
    form.append(el("label", {}, label, made));
    return made;
  };
  const types = [...new Set(lines.map((line) => line.type))].sort();
  const outcomes = Object.keys(OUTCOMES).filter((name) => lines.some((line) => line.outcome === name));
  const inputs = {};
  if (data.evaluations.length > 1) inputs.run = select("Run", [["", "all runs"], ...data.evaluations.map((run, place) => [String(place), run.label])]);
  inputs.type = select("Task type", [["*", "all"], ...types.map((type) => [type, type || "(none)"])]);
  inputs.outcome = select("Outcome", [["", "all"], ...outcomes.map((name) => [name, OUTCOMES[name][1]])]);
  const gaps = lines.some((line) => line.worst !== null);
  inputs.worst = el("input", { type: "number", min: "0", step: "any", placeholder: gaps ? "any" : "no gaps", disabled: !gaps });
  inputs.text = el("input", { type: "search", placeholder: "game or task" });
  for (const [label, input] of [["Worst gap at least", inputs.worst], ["Search", inputs.text]]) {
    input.addEventListener("input", changed);
    form.append(el("label", {}, label, input));
  }
  inputs.order = select("Order", [["failed", "failed first"], ["gap", "worst gap first"], ["long", "most steps first"], ["panel", "as played"]]);
  form.append(el("button", { type: "button", onclick: () => { for (const input of Object.values(inputs)) input.tagName === "SELECT" ? (input.selectedIndex = 0) : (input.value = ""); changed(); } }, "Reset"));
  return inputs;
}

const RANK = { failed: 0, error: 1, played: 2, won: 3 };
const ORDERS = {
  failed: (a, b) => RANK[a.outcome] - RANK[b.outcome] || a.place - b.place || a.number - b.number,
  gap: (a, b) => (b.worst ?? -1) - (a.worst ?? -1) || a.place - b.place || a.number - b.number,
  long: (a, b) => b.steps - a.steps || a.place - b.place || a.number - b.number,
  panel: (a, b) => a.place - b.place || a.number - b.number,
};

function filter(lines, inputs, state) {
  const worst = inputs.worst.value === "" ? null : Number(inputs.worst.value), text = inputs.text.value.trim().toLowerCase();
  const kept = state.shown[state.chosen];
  state.shown = lines.filter((line) =>
    (!inputs.run || inputs.run.value === "" || line.place === Number(inputs.run.value))
    && (inputs.type.value === "*" || line.type === inputs.type.value)
    && (inputs.outcome.value === "" || line.outcome === inputs.outcome.value)
    && (worst === null || (line.worst !== null && line.worst >= worst))
    && (!text || line.game.toLowerCase().includes(text) || line.task.toLowerCase().includes(text)));
  state.shown.sort(ORDERS[inputs.order.value]);
  const failed = state.shown.filter((line) => line.outcome === "failed" || line.outcome === "error").length;
  $("count").textContent = `${plural(state.shown.length, "episode")} of ${lines.length.toLocaleString("en")}, ${failed.toLocaleString("en")} not won`;
  state.several = !!inputs.run;
  const place = kept ? state.shown.indexOf(kept) : -1;
  $("episodes").scrollTop = 0;
  if (place >= 0) { state.chosen = place; reveal(state); state.draw(); }
  else if (state.shown.length) choose(state, 0);
  else {
    state.chosen = null;
    state.token++;
    state.draw();
    $("episode").replaceChildren(el("p", { class: "faint" }, "No episode is like this. Choose other filters."));
  }
}

function drawRows(box, rows, state) {
  rows.style.height = `${state.shown.length * ROW}px`;
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - MARGIN);
  const last = Math.min(state.shown.length, Math.ceil((box.scrollTop + (box.clientHeight || 600)) / ROW) + MARGIN);
  rows.replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, offset) => {
    const place = first + offset, line = state.shown[place], [sign, word] = OUTCOMES[line.outcome];
    const made = el("div", { class: "row", role: "option", id: `row-${place}`, "data-place": place, "aria-selected": String(place === state.chosen), "aria-posinset": place + 1, "aria-setsize": state.shown.length },
      el("div", {}, el("span", { class: line.outcome, title: word, "aria-label": word }, `${sign} `), state.several ? el("span", { class: `chip ${colour(line.place)}`, title: plain(line.run.label) }) : "", visible(line.game.slice(state.prefix)), line.trial ? ` · trial ${line.trial}` : ""),
      el("div", { class: "second" }, line.worst === null ? "" : gapChipOf(line), ` ${plural(line.steps, "step")}${line.fatal && line.fatal.step ? ` · fatal ${line.fatal.step}` : ""}${failedChecks(line)} · `, visible(line.task || line.type)));
    made.style.top = `${place * ROW}px`;
    return made;
  }));
  if (state.chosen === null) box.removeAttribute("aria-activedescendant");
  else box.setAttribute("aria-activedescendant", `row-${state.chosen}`);
}

function gapChipOf(line) {
  const made = gapChip(line.worst, line.run);
  made.textContent = `worst gap ${format(line.worst)}`;
  return made;
}

function failedChecks(line) {
  const lost = line.outcome === "won" ? [] : (line.checks || []).filter((check) => check.counted && !passed(check));
  return lost.length ? ` · ✗ ${plain(lost.map((check) => check.name).join(", "))}` : "";
}

function move(state, by) {
  if (state.shown.length) choose(state, Math.min(state.shown.length - 1, Math.max(0, (state.chosen ?? -1) + by)));
}

function reveal(state) {
  const box = $("episodes"), top = state.chosen * ROW;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
}

async function choose(state, place) {
  state.chosen = place;
  reveal(state);
  state.draw();
  const line = state.shown[place], token = ++state.token;
  try {
    const episode = await openEpisode(line.place, line);
    if (token === state.token) showEpisode(episode, line.run, state);
  } catch (error) {
    if (token === state.token) $("episode").replaceChildren(el("p", { class: "notice" }, `This episode could not be opened: ${error.message}. A browser of 2023 or later is needed.`));
  }
}

function showEpisode(episode, run, state) {
  const line = episode.line, body = $("episode"), word = OUTCOMES[line.outcome][1];
  const steps = el("div", {});
  let drawn = 0;
  const options = (step) => ({
    id: `step-${step.number}`, fatal: line.fatal && line.fatal.step,
    closest: line.fatal && line.fatal.closest && line.fatal.closest[0], left: line.fatal && line.fatal.closest && line.fatal.closest[1],
  });
  const more = el("button", { type: "button", class: "no-print", onclick: () => drawTo(drawn + MOST_STEPS) });
  function drawTo(count) {
    const fresh = episode.steps.slice(drawn, count);
    steps.append(...fresh.map((step, place) => drawStep(step, episode.steps[drawn + place - 1], run, options(step))));
    drawn += fresh.length;
    more.hidden = drawn >= episode.steps.length;
    more.textContent = `Show more of ${plural(episode.steps.length, "step")}`;
  }
  const go = (number) => {
    const place = episode.steps.findIndex((step) => step.number === number);
    if (place >= drawn) drawTo(place + 1);
    const target = $(`step-${number}`);
    if (target) { target.scrollIntoView({ block: "start" }); target.focus({ preventScroll: true }); }
  };
  drawTo(MOST_STEPS);
  const facts = [word, plural(line.steps, "step"), `reward ${format(line.reward)}`, line.ended && line.ended !== line.outcome ? `ended: ${line.ended}` : "", line.type, episode.invalid ? `${episode.invalid} invalid` : "", episode.tokens ? `${plural(episode.tokens[0] + episode.tokens[1], "token")}` : "", episode.seconds ? `${format(episode.seconds, 1)} s` : "", `episode ${line.number}`, line.trial ? `trial ${line.trial}` : "", episode.version || ""].filter(Boolean);
  body.replaceChildren(
    el("div", { class: "head" },
      el("h3", {}, el("span", { class: line.outcome }, `${OUTCOMES[line.outcome][0]} `), visible(line.game)),
      el("p", { class: "note" }, visible(state.several ? [line.run.label, ...facts].join(" · ") : facts.join(" · "))),
      episode.task ? el("div", {}, el("p", { class: "label" }, "Task"), textBlock(episode.task)) : "",
      episode.problem ? el("p", { class: "notice" }, el("strong", {}, "Wrong data of this task: "), visible(episode.problem)) : "",
      verdict(episode, go),
      line.checks ? checksTable(line.checks) : "",
      episode.left ? leftChart(episode.left, run.budget, line.fatal && line.fatal.step) : "",
      el("div", { class: "buttons" },
        el("button", { type: "button", disabled: state.chosen === 0, onclick: () => move(state, -1) }, "← Previous episode"),
        el("button", { type: "button", disabled: state.chosen === state.shown.length - 1, onclick: () => move(state, 1) }, "Next episode →")),
      gapStrip(episode, run, go)),
    steps, more);
}
