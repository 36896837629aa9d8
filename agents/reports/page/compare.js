/* Two runs, or two trials, on the same game: steps beside one another by their number. */

function showCompare(data) {
  const runs = data.evaluations.filter((run) => run.episodes.length);
  const byGame = (run) => {
    const found = new Map();
    for (const line of run.episodes) found.set(line.game, [...(found.get(line.game) || []), line]);
    return found;
  };
  const games = new Map(runs.map((run) => [run, byGame(run)]));
  const repeated = runs.some((run) => [...games.get(run).values()].some((lines) => lines.length > 1));
  if (runs.length < 2 && !repeated) return;
  $("compare").hidden = false;
  const form = $("sides");
  form.addEventListener("submit", (event) => event.preventDefault());
  const pick = (label, id) => {
    const made = el("select", { id });
    form.append(el("label", {}, label, made));
    return made;
  };
  const fill = (select, options) => {
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => el("option", { value }, plain(text))));
    if (options.some(([value]) => value === before)) select.value = before;
  };
  const place = (run) => data.evaluations.indexOf(run);
  const left = pick("Left run", "left-run"), leftTrial = pick("Trial", "left-trial"), right = pick("Right run", "right-run"), rightTrial = pick("Trial", "right-trial");
  const which = pick("Which games", "which-games"), game = pick("Game", "game");
  for (const select of [left, right]) fill(select, runs.map((run) => [String(place(run)), run.label]));
  right.selectedIndex = Math.min(1, runs.length - 1);
  fill(which, [["all", "all common games"], ["differ", "with different outcomes"]]);
  let token = 0;
  const sides = () => [data.evaluations[Number(left.value)], data.evaluations[Number(right.value)]];

  function chooseGame() {
    const [a, b] = sides();
    const common = [...games.get(a).keys()].filter((name) => games.get(b).has(name));
    const outcomes = (run, name) => games.get(run).get(name).map((line) => OUTCOMES[line.outcome][0]).join("");
    const wanted = which.value === "all" ? common : common.filter((name) => outcomes(a, name) !== outcomes(b, name));
    fill(game, wanted.map((name) => [name, `${outcomes(a, name)} ${outcomes(b, name)}  ${name}`]));
    chooseTrial();
  }

  function chooseTrial() {
    const [a, b] = sides();
    const trials = (run) => ((game.value && games.get(run).get(game.value)) || []).map((line) => [String(line.number), `${line.trial} ${OUTCOMES[line.outcome][1]}`]);
    fill(leftTrial, trials(a));
    fill(rightTrial, trials(b));
    if (a === b && rightTrial.options.length > 1 && leftTrial.value === rightTrial.value) rightTrial.selectedIndex = leftTrial.selectedIndex ? 0 : 1;
    for (const select of [leftTrial, rightTrial]) select.parentElement.hidden = select.options.length < 2;
    show();
  }

  async function show() {
    const own = ++token, [a, b] = sides(), body = $("compare-body");
    const find = (run, trial) => run.episodes.find((line) => line.number === Number(trial.value) && line.game === game.value);
    if (!game.value) {
      body.replaceChildren(el("p", { class: "faint" }, which.value === "all" ? "These runs have no game in common." : "All common games have the same outcome."));
      return;
    }
    const [first, second] = await Promise.all([openEpisode(place(a), find(a, leftTrial)), openEpisode(place(b), find(b, rightTrial))]);
    if (own === token) body.replaceChildren(...compareEpisodes(first, second, a, b, place));
  }

  for (const select of [left, right, which]) select.addEventListener("change", chooseGame);
  game.addEventListener("change", chooseTrial);
  for (const select of [leftTrial, rightTrial]) select.addEventListener("change", show);
  // After the first view, and without waiting for somebody to come near: it may be printed.
  setTimeout(chooseGame, 50);
}

function compareEpisodes(first, second, a, b, place) {
  const length = Math.max(first.steps.length, second.steps.length);
  const at = (episode, number) => episode.steps[number];
  let from = 0;
  while (from < length && at(first, from) && at(second, from) && at(first, from).action === at(second, from).action) from++;
  const head = (episode, run) => el("div", { class: "head" },
    el("h3", {}, named(run, place(run))),
    el("p", {}, el("span", { class: episode.line.outcome }, OUTCOMES[episode.line.outcome].join(" ")), ` · ${plural(episode.line.steps, "step")}${episode.line.trial ? ` · trial ${episode.line.trial}` : ""}${failedChecks(episode.line)}${episode.line.fatal && episode.line.fatal.step ? ` · first fatal step ${episode.line.fatal.step}` : ""}`));
  const grid = el("div", { class: "aligned" }, head(first, a), head(second, b));
  const cell = (episode, run, number) => {
    const step = at(episode, number);
    if (!step) return el("div", { class: "absent" }, number === episode.steps.length ? "The episode ended before." : "");
    return drawStep(step, at(episode, number - 1), run, { brief: true, differs: number === from, fatal: episode.line.fatal && episode.line.fatal.step });
  };
  let drawn = 0;
  const more = el("button", { type: "button", class: "no-print", onclick: () => drawTo(drawn + MOST_STEPS) });
  function drawTo(count) {
    for (; drawn < Math.min(count, length); drawn++) {
      if (drawn === from) grid.append(el("p", { class: "first-difference" }, `First difference: step ${from + 1}`));
      grid.append(cell(first, a, drawn), cell(second, b, drawn));
    }
    more.hidden = drawn >= length;
    more.textContent = `Show more of ${plural(length, "step")}`;
  }
  drawTo(MOST_STEPS);
  const begin = first.steps[0] || second.steps[0];
  const other = first.steps[0] && second.steps[0] && first.steps[0].observation !== second.steps[0].observation;
  return [
    begin ? el("div", {}, el("p", { class: "label" }, "First observation"), textBlock(begin.observation)) : "",
    other ? el("p", { class: "notice" }, "The right episode begins with another observation: the game may have been another one.") : "",
    from === length && length ? el("p", { class: "note" }, "Both took the same actions.") : "",
    grid, more,
  ];
}
