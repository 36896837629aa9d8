/* Draws the page. */

function main() {
  const data = JSON.parse($("data").textContent);
  const names = [...data.evaluations, ...data.trainings].map((run) => run.label);
  document.title = `${plain(names.join(", ")).slice(0, 120)} – rwml-gym report`;
  $("subtitle").append(visible(`${names.join(", ")} · made by rwml-gym ${data.version}`));
  showResults(data);
  showTrainings(data);
  showCurves(data);
  showGaps(data);
  showTrajectories(data);
  showCompare(data);
  for (const section of document.querySelectorAll("main > section:not([hidden])")) {
    $("contents").append(el("li", {}, el("a", { href: `#${section.id}` }, section.querySelector("h2").textContent)));
  }
  if ($("trajectories").hidden) document.querySelector(".skip").hidden = true;
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

try {
  main();
} catch (error) {
  $("broken").hidden = false;
  $("broken").textContent = `This page could not be drawn: ${error.message}`;
  throw error;
}
