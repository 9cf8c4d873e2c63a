"use strict";
// Draws the charts of the page with Vega-Lite. Nothing here turns text from the data into code or markup: charts are
// data, expressions are interpreted (no Function constructor), and tooltips are escaped.
(() => {
  const data = JSON.parse(document.getElementById("omnisink-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // name of a chart -> what vegaEmbed returned

  const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  const sanitize = (value) => String(value).replace(/[&<>"']/g, (character) => ESCAPES[character]);

  const NARROWEST = 280; // pixels that every chart for narrow boxes fits into

  /** How many pixels a chart gets in its box. */
  function widthOf(chart, box) {
    return Math.max(chart.narrow ? NARROWEST : chart.narrowest, box.clientWidth);
  }

  /** The chart at a width, with its data and with its controls where the reader left them. */
  function fitted(chart, width) {
    const spec = structuredClone(chart.narrow && width < chart.narrowest ? chart.narrow : chart.spec);
    spec.datasets = Object.fromEntries(chart.datasets.map((name) => [name, structuredClone(data.datasets[name])]));
    const before = drawn.get(chart.name);
    for (const parameter of spec.params ?? []) {
      if (before) parameter.value = before.view.signal(parameter.name);
    }
    if (spec.concat) {
      spec.columns = Math.min(spec.columns, Math.max(1, Math.floor(width / chart.panel)));
      const each = Math.floor((width - spec.spacing * (spec.columns - 1)) / spec.columns) - chart.beside;
      for (const view of spec.concat) view.width = each;
    } else if (spec.vconcat) {
      for (const view of spec.vconcat) view.width = width - chart.beside;
    } else {
      spec.width = width;
      spec.autosize = { type: "fit-x", contains: "padding" };
    }
    return spec;
  }

  async function draw(chart) {
    const place = document.querySelector(`[data-chart="${chart.name}"]`);
    const controls = document.querySelector(`[data-controls="${chart.name}"]`);
    const box = place.parentElement;
    const theme = dark.matches ? "dark" : "light";
    const width = widthOf(chart, box);
    const narrow = width < 480;
    const spec = fitted(chart, width);
    const focus = [...controls.querySelectorAll("input, select")].indexOf(document.activeElement);
    drawn.get(chart.name)?.finalize();
    controls.replaceChildren();
    place.style.width = `${width}px`;
    const config = structuredClone(data.themes[theme]);
    config.legend.columns = narrow ? 1 : 4;
    config.axisX.tickCount = narrow ? 5 : 10;
    config.aria = false; // the chart is one image with a name and words; its marks have nothing to add
    const drawing = document.createElement("div"); // Vega gives the element it draws into a role of its own
    place.replaceChildren(drawing);
    const result = await vegaEmbed(drawing, spec, {
      mode: "vega-lite",
      ast: true,
      actions: false,
      defaultStyle: false,
      renderer: chart.renderer,
      bind: controls,
      config,
      tooltip: { sanitize, disableDefaultStyle: true, theme: "page" },
    });
    drawn.set(chart.name, result);
    place.dataset.theme = theme;
    place.dataset.width = width;
    controls.querySelectorAll("input, select")[focus]?.focus();
    // What scrolls must be reachable without a mouse.
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }

  let drawing = Promise.resolve();
  function drawAll() {
    drawing = drawing.then(async () => {
      for (const chart of data.charts) {
        const place = document.querySelector(`[data-chart="${chart.name}"]`);
        const width = widthOf(chart, place.parentElement);
        const theme = dark.matches ? "dark" : "light";
        if (place.dataset.theme === theme && Number(place.dataset.width) === width) continue;
        try {
          await draw(chart);
        } catch (error) {
          place.textContent = "This chart could not be drawn; its numbers are below.";
          console.error(chart.name, error);
        }
      }
      document.documentElement.dataset.drawn = dark.matches ? "dark" : "light";
    });
  }

  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
  dark.addEventListener("change", drawAll);
  drawAll();

  // The table of contents follows the reader.
  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-20% 0px -70% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) seen.observe(section);
})();
