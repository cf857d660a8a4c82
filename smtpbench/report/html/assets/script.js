// The page is complete without this script. With it, uPlot draws each chart again, with zoom, values under the cursor and
// curves that can be hidden, and the reader can choose a light or a dark theme. Text is only ever set as text.
(() => {
  "use strict";
  const root = document.documentElement;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const plots = [];
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const element = (name, cls, text) => {
    const made = document.createElement(name);
    if (cls) made.className = cls;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // -- values as text, as in the tables
  const digits = (value) => (value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2));
  const milliseconds = (value) =>
    value < 0.9995 ? digits(value * 1000) + " us" : value < 999.5 ? digits(value) + " ms" : digits(value / 1000) + " s";
  const formatValue = (unit, value) => {
    if (value === null || value === undefined) return "–";
    if (unit === "ms") return milliseconds(value);
    if (unit === "s") return value >= 120 ? Math.floor(value / 60) + " min " + Math.round(value % 60) + " s" : +value.toFixed(1) + " s";
    const number = Math.abs(value) >= 1000 ? Math.round(value) : +value.toFixed(value >= 10 ? 1 : 2);
    return number.toLocaleString("en") + (unit === "percent" ? " %" : unit === "per_s" ? "/s" : unit === "MiB" || unit === "KiB" ? " " + unit : "");
  };
  const percentage = (nines) => {
    const value = 100 * (1 - Math.pow(10, -nines));
    return +value.toFixed(Math.max(1, Math.ceil(nines))) + " %";
  };
  const formatX = (chart, x) => (chart.x.k === "nines" ? percentage(x) : formatValue(chart.x.u, x));

  // -- the ticks of x: those of the page, or finer ones after zooming in
  const QUANTILES = [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99995, 0.99999, 0.999999];
  const roundTicks = (low, high, most) => {
    const minStep = (high - low) / most;
    const power = Math.pow(10, Math.floor(Math.log10(minStep)));
    const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= minStep) || 10);
    const found = [];
    for (let at = Math.ceil(low / step); at * step <= high + 1e-9; at++) found.push(+(at * step).toPrecision(12));
    return found;
  };
  const ticks = (chart, plot) => {
    const { min, max } = plot.scales.x;
    const within = chart.x.t.filter(([at]) => at >= min - 1e-9 && at <= max + 1e-9);
    if (min <= chart.x.lo && max >= chart.x.hi) return within.filter(([at], i) => !(plot.width < 380 && chart.x.k === "nines" && i === 1));
    if (chart.x.k === "nines") {
      const fine = QUANTILES.map((quantile) => -Math.log10(1 - quantile)).filter((at) => at >= min && at <= max);
      return fine.map((at) => [at, percentage(at)]);
    }
    return roundTicks(min, max, 6).map((at) => [at, formatValue(chart.x.u, at)]);
  };

  const isolated = (values) => {
    const found = [];
    values.forEach((value, at) => {
      if (value !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null) found.push(at);
    });
    return found;
  };

  const series = (one) => ({
    label: one.n,
    stroke: () => colour("--s" + (one.k % 8)),
    fill: one.l === "area" ? () => colour("--s" + (one.k % 8)) + "26" : undefined,
    width: 1.7,
    dash: one.l === "dashed" ? [5, 4] : undefined,
    points: one.l === "dotted" ? { show: true, size: 7, fill: () => colour("--s" + (one.k % 8)) } : { show: true, filter: () => isolated(one.p) },
  });

  // bands (such as the warm-up) are below the curves, marks (such as a limit) above them
  const bands = (chart) => (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.globalAlpha = 0.1;
    ctx.fillStyle = colour("--soft");
    for (const [low, high] of chart.b) {
      const left = Math.max(bbox.left, plot.valToPos(low, "x", true));
      const right = Math.min(bbox.left + bbox.width, plot.valToPos(high, "x", true));
      if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
    }
    ctx.restore();
  };
  const marks = (chart) => (plot) => {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.font = "600 " + 12 * ratio + "px system-ui, sans-serif";
    ctx.lineWidth = 1.5 * ratio;
    const labels = [];
    chart.m.forEach(([at, text, upright, tone], number) => {
      const where = plot.valToPos(at, upright ? "x" : "y", true);
      const [low, high] = upright ? [bbox.left, bbox.left + bbox.width] : [bbox.top, bbox.top + bbox.height];
      if (where < low - 1 || where > high + 1) return;
      const paint = colour(tone ? "--" + tone : "--soft");
      ctx.strokeStyle = paint;
      ctx.setLineDash(tone === "good" ? [] : [6 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(upright ? where : bbox.left, upright ? bbox.top : where);
      ctx.lineTo(upright ? where : bbox.left + bbox.width, upright ? bbox.top + bbox.height : where);
      ctx.stroke();
      const end = !upright || where > low + 0.6 * (high - low);
      const x = upright ? where + (end ? -5 : 5) * ratio : bbox.left + bbox.width - 4 * ratio;
      labels.push([text, x, upright ? bbox.top + (14 + 15 * number) * ratio : where - 5 * ratio, end, paint]);
    });
    ctx.setLineDash([]);
    ctx.lineJoin = "round";
    ctx.lineWidth = 4 * ratio;
    ctx.strokeStyle = colour("--paper");
    for (const [text, x, y, end, paint] of labels) {
      ctx.textAlign = end ? "right" : "left";
      ctx.strokeText(text, x, y);
      ctx.fillStyle = paint;
      ctx.fillText(text, x, y);
    }
    ctx.restore();
  };

  // -- the legend: buttons that hide a curve, and the values under the cursor
  const legend = (figure, chart) => {
    const list = figure.querySelector(".legend");
    const values = [...list.querySelectorAll("li[class]")].map((item) => {
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(...item.childNodes);
      const value = element("span", "value");
      button.append(value);
      item.append(button);
      return { button, value };
    });
    const where = element("li", "place");
    const reset = element("button", "reset", "reset zoom");
    reset.type = "button";
    reset.hidden = true;
    reset.setAttribute("aria-label", "reset the zoom of " + chart.t);
    list.append(where);
    return { values, where, reset };
  };

  const draw = (figure) => {
    const chart = charts[+figure.dataset.chart];
    const svg = figure.querySelector("svg.chart");
    const height = +svg.getAttribute("height");
    const box = element("div", "live");
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", chart.t + ": arrow keys left and right read values, plus and minus zoom, escape resets the zoom");
    figure.append(box);
    figure.classList.add("drawn");
    const { values, where, reset } = legend(figure, chart);
    box.append(reset);
    const axis = { stroke: () => colour("--soft"), font: "11.5px system-ui, sans-serif" };
    const lines = { stroke: () => colour("--grid"), width: 1 };
    const fullRange = { min: chart.x.lo, max: chart.x.hi };
    const [first, last] = [chart.xs[0], chart.xs[chart.xs.length - 1]];
    const plot = new uPlot(
      {
        width: Math.max(120, box.clientWidth),
        height,
        padding: [16, 26, 0, 0],
        legend: { show: false },
        cursor: { drag: { x: true, y: false, setScale: true }, points: { size: 7 }, sync: { key: chart.x.k, scales: ["x", null] } },
        scales: {
          x: { time: false, range: (u, min, max) => (min === null || (min <= first && max >= last) ? [fullRange.min, fullRange.max] : [min, max]) },
          y: { distr: chart.y.k === "log" ? 3 : 1, auto: false, range: [chart.y.lo, chart.y.hi] },
        },
        axes: [
          { ...axis, grid: lines, ticks: { show: false }, gap: 4, size: 26, splits: (u) => ticks(chart, u).map(([at]) => at),
            values: (u, splits) => { const texts = new Map(ticks(chart, u)); return splits.map((at) => texts.get(at) ?? ""); } },
          { ...axis, grid: lines, ticks: { show: false }, gap: 6, size: 58, filter: (u, splits) => splits, splits: () => chart.y.t.map(([at]) => at),
            values: () => chart.y.t.map(([, text]) => text) },
        ],
        series: [{}, ...chart.s.map(series)],
        hooks: {
          drawClear: [bands(chart)],
          draw: [marks(chart)],
          setCursor: [(u) => {
            const at = u.cursor.idx;
            const shown = at !== null && at !== undefined;
            where.textContent = shown ? "at " + formatX(chart, chart.xs[at]) : "";
            chart.s.forEach((one, i) => { values[i].value.textContent = shown ? formatValue(chart.y.u, one.p[at]) : ""; });
          }],
          setScale: [(u, name) => {
            if (name === "x") reset.hidden = u.scales.x.min <= fullRange.min && u.scales.x.max >= fullRange.max;
          }],
        },
      },
      [chart.xs, ...chart.s.map((one) => one.p)],
      box,
    );
    const zoom = (min, max) => plot.setScale("x", { min: Math.max(fullRange.min, min), max: Math.min(fullRange.max, max) });
    const resetZoom = () => zoom(fullRange.min, fullRange.max);
    plot.over.addEventListener("dblclick", resetZoom);
    reset.addEventListener("click", () => { resetZoom(); box.focus(); });
    values.forEach(({ button }, at) => button.addEventListener("click", () => {
      const show = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(show));
      plot.setSeries(at + 1, { show });
    }));
    box.addEventListener("keydown", (event) => {
      const { min, max } = plot.scales.x;
      const end = chart.xs.length - 1;
      const at = plot.cursor.idx ?? -1;
      const centre = at < 0 ? (min + max) / 2 : chart.xs[at];
      const step = event.shiftKey ? 10 : 1;
      const to = { ArrowRight: at + step, ArrowLeft: at < 0 ? end : at - step, Home: 0, End: end }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (to !== undefined) {
        const x = chart.xs[Math.min(end, Math.max(0, to))];
        plot.setCursor({ left: plot.valToPos(x, "x"), top: 1 });
      } else if (event.key === "+" || event.key === "=") zoom(centre - (centre - min) / 2, centre + (max - centre) / 2);
      else if (event.key === "-") zoom(centre - (centre - min) * 2, centre + (max - centre) * 2);
      else if (event.key === "Escape") resetZoom();
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => {
      const width = Math.floor(box.clientWidth);
      if (width > 0 && width !== plot.width) plot.setSize({ width, height });
    }).observe(box);
    plots.push(plot);
  };
  document.querySelectorAll("figure[data-chart]").forEach(draw);

  // -- the heatmap: the values of a cell, under the pointer or by the arrow keys
  const grids = JSON.parse(document.getElementById("grids").textContent);
  document.querySelectorAll("figure[data-grid]").forEach((figure) => {
    const grid = grids[+figure.dataset.grid];
    const inner = figure.querySelector("svg.heat svg");
    const where = figure.querySelector(".place");
    const [low, high] = grid.y.map(Math.log10);
    const at = { column: 0, row: 0 };
    const showCell = () => {
      const cells = grid.c[at.column];
      const counts = cells.filter((_, i) => i % 2);
      const found = cells.findIndex((row, i) => i % 2 === 0 && row === at.row);
      const time = (row) => milliseconds(Math.pow(10, low + ((high - low) * row) / grid.r));
      const total = counts.reduce((sum, count) => sum + count, 0);
      const count = found < 0 ? 0 : cells[found + 1];
      const moment = formatValue("s", (at.column * grid.e) / grid.c.length);
      where.textContent = `at ${moment}, ${time(at.row)} to ${time(at.row + 1)}: ${count.toLocaleString("en")} of ${total.toLocaleString("en")}`;
    };
    const clamp = (value, most) => Math.min(most - 1, Math.max(0, value));
    const move = (column, row) => {
      at.column = clamp(column, grid.c.length);
      at.row = clamp(row, grid.r);
      showCell();
    };
    inner.parentNode.addEventListener("pointermove", (event) => {
      const box = inner.getBoundingClientRect();
      move(Math.floor(((event.clientX - box.left) / box.width) * grid.c.length), grid.r - 1 - Math.floor(((event.clientY - box.top) / box.height) * grid.r));
    });
    inner.parentNode.addEventListener("pointerleave", () => { where.textContent = ""; });
    figure.tabIndex = 0;
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      move(at.column + step[0], at.row + step[1]);
    });
  });

  // -- only elements that scroll are Tab stops
  const stops = document.querySelectorAll(".scroll, pre");
  const updateStops = () => stops.forEach((one) => {
    if (one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1) one.tabIndex = 0;
    else one.removeAttribute("tabindex");
  });
  addEventListener("resize", updateStops);
  document.querySelectorAll("details").forEach((one) => one.addEventListener("toggle", updateStops));
  updateStops();

  // -- light and dark theme
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    const theme = isDark() ? "light" : "dark";
    button.textContent = theme + " theme";
    button.setAttribute("aria-label", "switch to the " + theme + " theme");
    plots.forEach((plot) => plot.redraw());
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
})();
