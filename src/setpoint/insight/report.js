// The page's own script: the temperature slider over rows of real logits, and the plots.
"use strict";

// ---- The maths: pure functions of arrays of numbers, the same as setpoint.maths has in Python ----

/** Log softmax(logits / t); a masked class is -Infinity. */
function logTemper(logits, t) {
  const scaled = logits.map((logit) => logit / t);
  const top = scaled.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = scaled.reduce((sum, x) => sum + Math.exp(x - top), 0);
  return scaled.map((x) => x - top - Math.log(total));
}

/** exp(H): as many equally likely classes would be as uncertain; 0 log 0 = 0. */
function effectiveClasses(logProbs) {
  return Math.exp(logProbs.reduce((h, x) => (x === -Infinity ? h : h - Math.exp(x) * x), 0));
}

/**
 * The scaled gradient of the forward KL on the student's logits, at one t for both sides.
 *
 * T² is written here once more, for a browser has no Python: the place that decides is `balanced` in
 * setpoint/temperature/base.py, and a test compares the two.
 */
function scaledGradient(logTargets, logStudent, t) {
  const scale = t * t;
  return logTargets.map((log_p, k) => scale * (Math.exp(logStudent[k]) - Math.exp(log_p)) / t);
}

/** The values of the shown classes, and the sum over all others as the last. */
function grouped(values, shown) {
  const own = new Set(shown);
  const others = values.reduce((sum, value, k) => (own.has(k) ? sum : sum + value), 0);
  return [...shown.map((k) => values[k]), others];
}

/** What a row shows at t: its effective classes, and targets and gradients of shown classes and the others. */
function rowAt(row, t) {
  const logTargets = logTemper(row.teacher, t);
  const gradient = scaledGradient(logTargets, logTemper(row.student, t), t);
  return {
    effective: effectiveClasses(logTargets),
    targets: grouped(logTargets.map(Math.exp), row.shown),
    gradient: grouped(gradient, row.shown),
  };
}

/** The logits of a row as JSON has them, null for a masked class; an untrained student says the same of each class. */
function readRow(row) {
  const number = (logit) => (logit === null ? -Infinity : logit);
  const teacher = row.teacher.map(number);
  const student = row.student === null
    ? teacher.map((logit) => (logit === -Infinity ? -Infinity : 0))
    : row.student.map(number);
  return { teacher, student, shown: row.shown };
}

/** T in a fragment such as "#T=2.5", kept within the bounds; null where there is none. */
function temperatureIn(fragment, low, high) {
  const found = /^#T=([0-9.]+(?:e[+-]?[0-9]+)?)$/i.exec(fragment);
  const t = found === null ? NaN : Number(found[1]);
  return t > 0 && t < Infinity ? Math.min(Math.max(t, low), high) : null;
}

/** Three significant digits, without an exponent for the numbers one meets. */
function short(x) {
  return String(Number(x.toPrecision(3)));
}

// ---- The slider ----

function setUpSlider() {
  const data = document.getElementById("slides-data");
  if (data === null) return;
  const given = JSON.parse(data.textContent);
  const slider = document.getElementById("temperature");
  const output = document.getElementById("temperature-value");
  const cards = [...document.querySelectorAll("[data-row]")].map((card) => {
    const row = readRow(given.rows[Number(card.dataset.row)]);
    // The bars of a row are to one scale at all temperatures, so that a gradient is seen to grow.
    let most = 1e-12;
    for (let t = given.low; t <= given.high * 1.001; t *= 2) {
      for (const g of rowAt(row, t).gradient) most = Math.max(most, Math.abs(g));
    }
    return { card, row, most, lines: [...card.querySelectorAll("[data-class]")] };
  });

  function show(t) {
    const said = "T = " + short(t);
    document.getElementById("slides").dataset.temperature = String(t);
    output.textContent = said;
    slider.setAttribute("aria-valuetext", said);
    for (const { card, row, most, lines } of cards) {
      const at = rowAt(row, t);
      card.dataset.effective = String(at.effective);
      card.querySelector(".effective").textContent = at.effective.toFixed(2);
      lines.forEach((line, k) => {
        const [target, gradient] = [at.targets[k], at.gradient[k]];
        line.dataset.target = String(target);
        line.dataset.gradient = String(gradient);
        const [p, g] = line.querySelectorAll("td");
        p.firstChild.textContent = target.toFixed(3);
        p.style.setProperty("--to", target);
        g.firstChild.textContent = gradient.toFixed(3);
        const end = 0.5 + gradient / most / 2;
        g.style.setProperty("--from", Math.min(0.5, end));
        g.style.setProperty("--to", Math.max(0.5, end));
        g.classList.toggle("raises", gradient < 0);
      });
    }
  }

  function move(t) {
    slider.value = String(Math.log2(t));
    show(t);
  }

  slider.addEventListener("input", () => show(2 ** Number(slider.value)));
  slider.addEventListener("change", () => {
    history.replaceState(null, "", "#T=" + short(2 ** Number(slider.value)));
  });
  for (const button of document.querySelectorAll("button[data-t]")) {
    button.addEventListener("click", () => move(Number(button.dataset.t)));
  }
  function follow() {
    const t = temperatureIn(location.hash, given.low, given.high);
    if (t !== null) move(t);
    return t !== null;
  }
  window.addEventListener("hashchange", follow);
  if (!follow()) move(given.temperature);
}

// ---- The plots ----

/** Pixels of a plot on paper, A4 or Letter: of one that has its width, and of one beside another. */
const PAPER = { whole: 680, half: 330 };

/** Draw all plots in the colours that the page has now; on paper they do not find out how wide they can be. */
function draw(onPaper) {
  const style = getComputedStyle(document.body);
  for (const data of document.querySelectorAll("script[data-plot]")) {
    const place = document.getElementById(data.dataset.plot);
    const { data: traces, layout } = JSON.parse(data.textContent);
    layout.template = {};
    layout.font.color = style.color;
    layout.hoverlabel = {
      bgcolor: style.getPropertyValue("--card"), bordercolor: style.getPropertyValue("--line"),
      font: { color: style.color },
    };
    if (onPaper) layout.width = place.closest(".whole") ? PAPER.whole : PAPER.half;
    Plotly.react(place, traces, layout, { responsive: true, displayModeBar: false });
  }
}

function setUpPlots() {
  draw(false);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(false));
  window.addEventListener("beforeprint", () => draw(true));
  window.addEventListener("afterprint", () => draw(false));
}

setUpSlider();
setUpPlots();
