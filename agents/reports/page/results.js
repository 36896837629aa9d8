/* Results, trainings, learning curves and histograms of gaps. */

function factsTable(runs) {
  const names = [...new Set(runs.flatMap((run) => run.facts.map(([name]) => name)))];
  const values = runs.map((run) => new Map(run.facts));
  return el("details", {}, el("summary", {}, "Settings and versions"),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings and versions" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, ""), ...runs.map((run) => el("th", { scope: "col" }, visible(run.label))))),
      el("tbody", {}, ...names.map((name) => el("tr", {}, el("th", { scope: "row" }, visible(name)), ...values.map((map) => el("td", { class: "fact" }, visible(map.get(name) ?? "–")))))))));
}

const named = (run, place) => el("span", {}, el("span", { class: `chip ${colour(place)}`, "aria-hidden": "true" }), visible(run.label));
const fact = (run, name) => (run.facts.find(([known]) => known === name) || [null, ""])[1];

function showResults(data) {
  const runs = data.evaluations, body = $("results-body");
  if (!runs.length) return;
  $("results").hidden = false;
  for (const run of runs) {
    if (run.expected !== null && run.finished < run.expected) body.append(el("p", { class: "notice" }, el("strong", {}, visible(run.label)), `: the evaluation was interrupted, ${run.finished} of ${run.expected} episodes are here.`));
    else if (!run.finished) body.append(el("p", { class: "notice" }, el("strong", {}, visible(run.label)), ": no episode is finished."));
  }
  const full = runs.map((run, place) => ({ run, place })).filter(({ run }) => run.results);
  if (!full.length) { body.append(factsTable(runs)); return; }
  const judged = full.filter(({ run }) => run.judged);
  const who = (run) => [fact(run, "agent"), fact(run, "model")].filter(Boolean).join(" ");
  const where = (run) => [fact(run, "env"), fact(run, "domain"), fact(run, "split"), fact(run, "user") && `user ${fact(run, "user")}`].filter(Boolean).join(" ");
  body.append(table(
    ["run", "agent", "environment", "episodes", "success [95 %]", "reward [95 %]", "steps [95 %]", "invalid", "inefficient", "failures"],
    full.map(({ run, place }) => {
      const found = run.results, failures = run.failures.agent + run.failures.environment;
      return [named(run, place), who(run), where(run), run.expected ? `${run.finished} of ${run.expected}` : String(run.finished),
        run.judged ? interval(found.success) : "–", interval(found.reward), interval(found.steps, (v) => format(v, 1)), percent(found.invalid), percent(found.inefficient),
        failures ? `agent ${run.failures.agent}, environment ${run.failures.environment}` : "0"];
    })));
  const kinds = [...new Set(full.map(({ run }) => run.results.interval))];
  body.append(el("p", { class: "note" }, `Intervals of success: ${kinds.join("; ")}. Those of reward and steps: bootstrap over games. Every finished episode counts; one that ended by a failure counts as not won.`));
  if (judged.length < full.length) body.append(el("p", { class: "note" }, "An environment without info[\"won\"] does not say which episodes are won, so its reward stands alone."));
  for (const { run } of full) if (run.flawed) body.append(el("p", { class: "note" }, visible(`${run.label}: ${run.flawed} of ${run.finished} episodes are of tasks with wrong data; each says what is wrong.`)));
  const charts = el("div", { class: "charts wide" });
  if (judged.length) charts.append(intervalChart("Success", "share of the episodes, with its 95 % interval", judged.map(({ run, place }) => ({ name: run.label, value: run.results.success, place })), true));
  if (data.differences.length) charts.append(intervalChart("Difference in success on common games", "second less first, 95 % interval over games", data.differences.map((found) => ({ name: `${found.b} − ${found.a}`, value: found.value, note: plural(found.games, "game") })), false, signed));
  for (const { run, place } of judged) {
    if (run.types.length > 1) charts.append(intervalChart("Success by task type", full.length > 1 ? run.label : null, run.types.map((type) => ({ name: type.name, value: type.success, place, note: `${type.won} of ${type.n}, ${format(type.steps[0], 1)} steps` })), true));
    if (run.pass.length) charts.append(intervalChart("pass^k: all of k trials won", full.length > 1 ? run.label : null, run.pass.map((found) => ({ name: `pass^${found.k}`, value: found.value, place })), true));
  }
  body.append(charts);
  const used = full.filter(({ run }) => run.results.tokens || run.results.cost || run.results.seconds);
  if (used.length) body.append(el("details", {}, el("summary", {}, "Tokens, time and cost"), table(["run", "tokens an episode", "seconds, all", "US dollars, all"], used.map(({ run, place }) => [named(run, place), format(run.results.tokens, 0), format(run.results.seconds, 0), format(run.results.cost, 2)]))));
  body.append(factsTable(runs));
}

function showTrainings(data) {
  const runs = data.trainings;
  if (!runs.length) return;
  $("trainings").hidden = false;
  const body = $("trainings-body");
  runs.forEach((run, place) => {
    body.append(el("h3", {}, named(run, place)));
    if (!run.tables.length) body.append(el("p", { class: "notice" }, "This training has no results yet: it runs, or was interrupted."));
    const charts = el("div", { class: "charts wide" });
    for (const found of run.tables) charts.append(intervalChart(found.title, found.interval === "none" ? null : `95 % intervals: ${found.interval}`, found.rows.map((row) => ({ ...row, place })), found.unit, found.signed ? signed : format));
    body.append(charts);
    if (run.report) body.append(el("details", {}, el("summary", {}, "report.txt"), el("pre", { tabindex: 0 }, visible(run.report))));
  });
  body.append(factsTable(runs));
}

const stageName = (name) => ({ rwml: "RWML (GRPO)", policy: "Policy (GRPO)", imitation: "Imitation", warm_start: "Warm start (SFT)", sft_same_time: "SFT of the same time", sft: "Next-state SFT" })[name] || name;

function showCurves(data) {
  const runs = data.trainings.map((run, place) => ({ run, place })).filter(({ run }) => Object.keys(run.curves).length);
  if (!runs.length) return;
  $("curves").hidden = false;
  const body = $("curves-body");
  if (runs.length > 1) body.append(el("ul", { class: "legend" }, ...runs.map(({ run, place }) => el("li", {}, named(run, place)))));
  const stages = [...new Set(runs.flatMap(({ run }) => Object.keys(run.curves)))];
  const order = ["rwml", "policy"];
  stages.sort((a, b) => (order.indexOf(b) - order.indexOf(a)) || (a < b ? -1 : 1));
  for (const stage of stages) {
    const own = runs.filter(({ run }) => run.curves[stage]);
    const keys = [];
    for (const { run } of own) for (const curve of run.curves[stage]) if (!keys.some((known) => known.key === curve.key)) keys.push(curve);
    body.append(el("h3", {}, visible(stageName(stage)), el("span", { class: "note" }, " by update; from 10 updates on the thick line is a mean of 5")));
    body.append(el("div", { class: "charts" }, ...keys.map(({ key, title }) => lineChart(title, own.flatMap(({ run, place }) => run.curves[stage].filter((curve) => curve.key === key).map((curve) => ({ name: run.label, place, x: curve.x, y: curve.y })))))));
  }
}

function showGaps(data) {
  const charts = [];
  for (const run of data.evaluations) {
    const name = run.label;
    if (run.gaps) charts.push(histogramChart(run.roles.length ? `${name}, all messages` : name, run.gaps));
    for (const role of run.roles) charts.push(histogramChart(`${name}, role ${role.name}`, role.gaps));
  }
  for (const run of data.trainings) for (const found of run.gaps) charts.push(histogramChart(`${run.label}: held-out predictions of ${found.name}`, found.gaps));
  if (!charts.length) return;
  $("gaps").hidden = false;
  $("gaps-body").append(el("p", { class: "note" }, "Gaps strictly below the threshold τ are rewarded (blue); the others are not (orange)."), el("div", { class: "charts wide" }, ...charts));
}
