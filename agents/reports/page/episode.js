/* One episode: what happened in each step, and what was predicted. */

/* The colour of a gap: grey at the threshold, bluer below it, redder above it, by the logarithm. */
function paintGap(made, gap, threshold, most) {
  const pivot = threshold || Math.max(most || 0, 1e-6) / 2;
  const near = gap < pivot;
  const share = near ? 1 - gap / pivot : Math.min(1, Math.log(gap / pivot || 1) / Math.log(Math.max(most || 1, pivot * 1.5) / pivot));
  made.classList.add(near ? "near" : "far");
  if (share > 0.75) made.classList.add("strong");
  made.style.setProperty("--share", `${Math.round(15 + 85 * share)}%`);
  return made;
}

function gapChip(gap, run) {
  const made = el("span", { class: "gap" }, `gap ${format(gap)}`);
  if (run.threshold !== null) made.title = gap < run.threshold ? `below the threshold ${run.threshold}` : `not below the threshold ${run.threshold}`;
  return paintGap(made, gap, run.threshold, run.worst);
}

const OUTCOMES = { won: ["✓", "won"], failed: ["✗", "failed"], error: ["!", "ended by a failure"], played: ["·", "played"] };

/* Words that only one of two texts has, by their longest common subsequence; of long texts, what is between the common
   beginning and the common end. */
const MOST_CELLS = 1_000_000;

function difference(first, second) {
  const a = first.match(/\s+|[^\s\w]|\w+/gu) || [], b = second.match(/\s+|[^\s\w]|\w+/gu) || [];
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const n = a.length - head - tail, m = b.length - head - tail;
  const keptA = new Uint8Array(a.length), keptB = new Uint8Array(b.length);
  keptA.fill(1, 0, head); keptA.fill(1, a.length - tail); keptB.fill(1, 0, head); keptB.fill(1, b.length - tail);
  if (n * m <= MOST_CELLS && n && m) {
    const lengths = new Uint16Array((n + 1) * (m + 1));
    for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--) {
      lengths[i * (m + 1) + j] = a[head + i] === b[head + j] ? lengths[(i + 1) * (m + 1) + j + 1] + 1 : Math.max(lengths[(i + 1) * (m + 1) + j], lengths[i * (m + 1) + j + 1]);
    }
    for (let i = 0, j = 0; i < n && j < m;) {
      if (a[head + i] === b[head + j]) { keptA[head + i] = keptB[head + j] = 1; i++; j++; }
      else if (lengths[(i + 1) * (m + 1) + j] >= lengths[i * (m + 1) + j + 1]) i++;
      else j++;
    }
  }
  return [[a, withSpaces(a, keptA), "missing"], [b, withSpaces(b, keptB), "new"]];
}

/* White space is marked where the words at both its sides are. */
function withSpaces(words, kept) {
  return words.map((word, place) => (word.trim() ? kept[place] : Number(!(place && place + 1 < words.length && !kept[place - 1] && !kept[place + 1]))));
}

function drawMarked([words, kept, kind]) {
  const made = document.createDocumentFragment();
  for (let from = 0; from < words.length;) {
    let to = from;
    while (to < words.length && kept[to] === kept[from]) to++;
    const text = words.slice(from, to).join("");
    made.append(kept[from] || !text.trim() ? visible(text) : el("mark", { class: kind }, visible(text)));
    from = to;
  }
  return made;
}

function predictedAndReal(step) {
  const same = step.prediction.trim() === step.answer.trim();
  const [first, second] = same ? [null, null] : difference(step.prediction.slice(0, MOST_SHOWN), step.answer.slice(0, MOST_SHOWN));
  return el("div", { class: "pair" },
    el("div", {}, el("p", { class: "label" }, same ? "Predicted state (the same)" : "Predicted state"), textBlock(step.prediction, same ? visible : () => drawMarked(first))),
    el("div", {}, el("p", { class: "label" }, `Realised state${step.role ? ` (${plain(step.role)})` : ""}`), textBlock(step.answer, same ? visible : () => drawMarked(second))));
}

function drawStep(step, previous, run, options = {}) {
  const fatal = options.fatal === step.number;
  const badges = [
    fatal ? el("span", { class: "badge bad" }, "first fatal step") : null,
    options.closest === step.number ? el("span", { class: "badge" }, `${plural(options.left, "step")} from winning before it`) : null,
    step.gap !== null ? gapChip(step.gap, run) : null,
    step.reward ? el("span", { class: "badge" }, `reward ${format(step.reward)}`) : null,
    step.invalid ? el("span", { class: "badge bad" }, "invalid action") : null,
    step.inefficient ? el("span", { class: "badge" }, "looks without acting") : null,
  ];
  const body = el("div", {});
  const seen = previous && previous.answer === step.observation;
  if (!options.brief) {
    if (seen) body.append(el("details", { class: "no-print" }, el("summary", {}, `Observation: the state after step ${previous.number}`), textBlock(step.observation)));
    else body.append(el("p", { class: "label" }, "Observation"), textBlock(step.observation));
  }
  if (step.thought) body.append(el("p", { class: "label" }, "Thought"), textBlock(step.thought));
  if (step.prediction !== null) body.append(predictedAndReal(step));
  else body.append(el("p", { class: "label" }, `Realised state${step.role ? ` (${plain(step.role)})` : ""}`), textBlock(step.answer));
  if (!options.brief && step.written !== null) body.append(folded("What the model wrote", step.written));
  if (!options.brief && step.shown !== null) body.append(folded("What the model was shown", step.shown));
  return el("section", { class: `step${fatal ? " fatal" : ""}${options.differs ? " differs" : ""}`, id: options.id, tabindex: -1, "aria-label": `Step ${step.number}` },
    el("header", {}, el("strong", {}, `${step.number}`), actionText(step.action), ...badges), body);
}

function actionText(action) {
  const cut = action.length > 1500;
  return el("span", { class: "action", dir: "auto" }, visible(cut ? action.slice(0, 1500) : action), cut ? `… (${action.length.toLocaleString("en")} characters)` : "");
}

/* The text is put in when it is opened: a prompt is long, and there are many. */
function folded(title, text) {
  const made = el("details", { class: "no-print" }, el("summary", {}, `${title} (${text.length.toLocaleString("en")} characters)`));
  made.addEventListener("toggle", () => { if (made.open && made.childElementCount === 1) made.append(textBlock(text)); });
  return made;
}

/* Why it was lost: the first fatal step, the failed checks, the failure. */
function verdict(episode, go) {
  const lines = [], fatal = episode.line.fatal;
  const button = (step) => el("button", { type: "button", class: "no-print", onclick: () => go(step) }, `Go to step ${step}`);
  if (episode.error) lines.push(el("p", {}, el("strong", {}, `The ${episode.who || "run"} failed: `), visible(episode.error)));
  if (fatal) {
    if (fatal.problem) lines.push(el("p", {}, el("strong", {}, "First fatal step unknown. "), visible(fatal.problem)));
    else {
      if (fatal.step === 0) lines.push(el("p", {}, el("strong", {}, "Lost from the start: "), "the expert needs more steps than the budget has."));
      else if (fatal.step) lines.push(el("p", {}, el("strong", {}, `First fatal step: ${fatal.step}. `), "After it, the expert can no longer win in what is left of the budget. ", button(fatal.step)));
      else lines.push(el("p", {}, el("strong", {}, "No fatal step: "), "the expert could still win when the episode ended."));
      if (fatal.closest) {
        const [step, left] = fatal.closest;
        if (step === fatal.step) lines.push(el("p", {}, `Before it, it was as close as it ever was again: the expert needed ${plural(left, "step")}.`));
        else if (step <= episode.steps.length) lines.push(el("p", {}, `It was closest before step ${step}: the expert needed ${plural(left, "step")}. `, button(step)));
        else lines.push(el("p", {}, `At its end, the expert needed ${plural(left, "step")}.`));
      }
    }
  }
  const checks = episode.line.checks || [];
  if (checks.length && episode.line.outcome !== "won") {
    const lost = checks.filter((check) => check.counted && !passed(check));
    lines.push(el("p", {}, el("strong", {}, lost.length ? `Failed ${lost.length === 1 ? "check" : "checks"}: ` : "No counted check failed."), visible(lost.map((check) => checkName(check.name)).join(", "))));
  }
  return lines.length ? el("div", { class: "verdict" }, ...lines) : null;
}

const CHECKS = { DB: "database", ENV_ASSERTION: "state of the world", ACTION: "expected actions", COMMUNICATE: "what the user was told", NL_ASSERTION: "assertions in words" };
const checkName = (name) => (CHECKS[name] ? `${CHECKS[name]} (${name})` : name);
const passed = (check) => check.value === true || Number(check.value) >= 1;

function checksTable(checks) {
  return table(["check", "result", "counts for the task"], checks.map((check) => [checkName(check.name),
    el("span", { class: passed(check) ? "won" : "failed" }, passed(check) ? "✓ passed" : `✗ failed${typeof check.value === "number" && check.value > 0 ? ` (${format(check.value)})` : ""}`), check.counted ? "yes" : "no"]));
}

function gapStrip(episode, run, go) {
  if (!episode.steps.some((step) => step.gap !== null)) return null;
  const fatal = episode.line.fatal && episode.line.fatal.step;
  return el("div", { class: "strip no-print", role: "group", "aria-label": "Gap of each step" }, ...episode.steps.map((step) => {
    const made = el("button", { type: "button", class: `cell${step.gap === null ? " none" : ""}${fatal === step.number ? " mark" : ""}`, title: `step ${step.number}: ${step.gap === null ? "no prediction" : `gap ${format(step.gap)}`}${fatal === step.number ? ", first fatal step" : ""}`, onclick: () => go(step.number) }, String(step.number));
    return step.gap === null ? made : paintGap(made, step.gap, run.threshold, run.worst);
  }));
}
