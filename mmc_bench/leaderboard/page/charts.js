// Drawings, made of SVG elements alone. Text from records enters by textContent.
"use strict";

const charts = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const MARKS = {
    NC: "M-3.5 0A3.5 3.5 0 1 0 3.5 0A3.5 3.5 0 1 0-3.5 0",
    C: "M-3.2-3.2H3.2V3.2H-3.2Z",
    RC: "M0-4.2L4 3.2H-4Z",
    RI: "M0-4.4L4.4 0L0 4.4L-4.4 0Z",
  };
  const LOG_ABOVE = 10; // nats: a larger loss would press all others to the ground

  function svg(name, attributes = {}, text = null) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    return element;
  }

  const minus = (text) => text.replace("-", "−");
  const shortened = (text) => (text.length > 30 ? `${[...text].slice(0, 28).join("")}…` : text);

  // Round numbers that cover [low, high] in about `count` steps.
  function ticks(low, high, count) {
    const raw = (high - low || 1) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
    const found = [];
    for (let i = Math.floor(low / step + 1e-9); i <= Math.ceil(high / step - 1e-9); i += 1) found.push(i * step);
    return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  }

  function logTicks(high) {
    const values = [0];
    for (const value of [1, 2, 5].flatMap((digit) => [1, 10, 100, 1e3, 1e4, 1e5].map((power) => digit * power)).sort((a, b) => a - b)) {
      if (value < high && Math.log1p(value) - Math.log1p(values.at(-1)) > Math.log1p(high) / 7) values.push(value);
    }
    return { values, digits: 0 };
  }

  // A drawing area with axes; x and y map data to pixels.
  function frame(container, height, horizontal, vertical, label) {
    const width = Math.max(240, Math.floor(container.clientWidth));
    const inner = { left: 46, right: width - 12, top: 10, bottom: height - 40 };
    const bend = vertical.log ? Math.log1p : (value) => value;
    const [x0, x1] = horizontal.range;
    const [y0, y1] = vertical.range.map(bend);
    const x = (value) => inner.left + ((value - x0) / (x1 - x0)) * (inner.right - inner.left);
    const y = (value) => inner.bottom - ((bend(value) - y0) / (y1 - y0)) * (inner.bottom - inner.top);
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    for (const value of vertical.ticks.values) {
      root.append(svg("path", { class: "grid", d: `M${inner.left} ${y(value)}H${inner.right}` }));
      const place = { class: "tick", x: inner.left - 8, y: y(value) + 4, "text-anchor": "end" };
      root.append(svg("text", place, minus(value.toFixed(vertical.ticks.digits))));
    }
    for (const value of horizontal.ticks.values) {
      root.append(svg("path", { class: "grid", d: `M${x(value)} ${inner.top}V${inner.bottom}` }));
      const place = { class: "tick", x: x(value), y: inner.bottom + 17, "text-anchor": "middle" };
      root.append(svg("text", place, minus(value.toFixed(horizontal.ticks.digits))));
    }
    const middle = { x: (inner.left + inner.right) / 2, y: (inner.top + inner.bottom) / 2 };
    root.append(svg("text", { class: "axis", x: middle.x, y: height - 4, "text-anchor": "middle" }, horizontal.label));
    const turned = { class: "axis", transform: `translate(11 ${middle.y}) rotate(-90)`, "text-anchor": "middle" };
    root.append(svg("text", turned, vertical.label));
    container.replaceChildren(root);
    return { root, x, y, inner };
  }

  function around(values, count) {
    const found = ticks(Math.min(...values), Math.max(...values), count);
    const range = [found.values[0], found.values.at(-1)];
    return { ticks: found, range: range[0] === range[1] ? [range[0] - 1, range[1] + 1] : range };
  }

  // Where a label may stand beside its point: to the right, left, above, below.
  const PLACES = [[9, 4, "start"], [-9, 4, "end"], [0, -10, "middle"], [0, 18, "middle"], [8, -7, "start"],
    [8, 15, "start"], [-8, -7, "end"], [-8, 15, "end"]];

  function placeLabel(label, point, taken, inner) {
    const width = label.getComputedTextLength();
    for (const [dx, dy, anchor] of PLACES) {
      const left = point.x + dx - { start: 0, middle: width / 2, end: width }[anchor];
      const box = { left: left - 2, right: left + width + 2, top: point.y + dy - 11, bottom: point.y + dy + 3 };
      const inside = box.left > inner.left && box.right < inner.right && box.top > inner.top && box.bottom < inner.bottom;
      const free = taken.every((other) => box.right < other.left || box.left > other.right
        || box.bottom < other.top || box.top > other.bottom);
      if (inside && free) {
        taken.push(box);
        return { dx, dy, anchor };
      }
    }
    const room = point.x + 9 + width < inner.right;
    return { dx: room ? 9 : -9, dy: 4, anchor: room ? "start" : "end", crowded: true };
  }

  // points: [{id, name, pretrained, x: [mean, half width or null], y: likewise, in per cent}]
  function tradeOff(container, points, setting) {
    const ends = (pair) => [pair[0] - (pair[1] ?? 0), pair[0] + (pair[1] ?? 0)];
    // The means decide what is in sight; an interval may reach beyond it.
    const horizontal = around([0, ...points.map((point) => point.x[0])], 6);
    const vertical = around(points.map((point) => point.y[0]), 5);
    const label = `NC accuracy against cue reliance of ${points.length} networks, ${setting}; the table has the numbers.`;
    const { root, x, y, inner } = frame(container, 400, { ...horizontal, label: "cue reliance" },
      { ...vertical, label: "NC accuracy (%)" }, label);
    root.append(svg("path", { class: "zero", d: `M${x(0)} ${inner.top}V${inner.bottom}` }));
    const inRange = (value, axis) => Math.min(axis.range[1], Math.max(axis.range[0], value));
    const groups = new Map();
    const taken = points.map((point) => {
      const [cx, cy] = [x(point.x[0]), y(point.y[0])];
      return { left: cx - 5, right: cx + 5, top: cy - 5, bottom: cy + 5 };
    });
    for (const point of points) {
      const [cx, cy] = [x(point.x[0]), y(point.y[0])];
      const group = svg("g", { class: point.pretrained ? "point pretrained" : "point", "data-row": point.id });
      const [left, right] = ends(point.x).map((value) => x(inRange(value, horizontal)));
      const [low, high] = ends(point.y).map((value) => y(inRange(value, vertical)));
      group.append(svg("path", { class: "interval", d: `M${left} ${cy}H${right}M${cx} ${low}V${high}` }));
      const mark = point.pretrained ? "M0-6L6 0L0 6L-6 0Z" : "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0-5 0";
      group.append(svg("path", { class: "dot", d: mark, transform: `translate(${cx} ${cy})` }));
      group.append(svg("title", {}, point.name));
      group.append(svg("circle", { class: "reach", cx, cy, r: 13 }), svg("text", {}, shortened(point.name)));
      root.append(group);
      groups.set(point.id, group);
    }
    for (const point of points) {
      const label = groups.get(point.id).lastChild;
      const [cx, cy] = [x(point.x[0]), y(point.y[0])];
      const place = placeLabel(label, { x: cx, y: cy }, taken, inner);
      label.setAttribute("x", cx + place.dx);
      label.setAttribute("y", cy + place.dy);
      label.setAttribute("text-anchor", place.anchor);
      groups.get(point.id).classList.toggle("crowded", Boolean(place.crowded));
    }
    return groups;
  }

  // One line a split along t; `values` has accuracies in per cent or losses in nats.
  function curves(container, t, values, kind) {
    const all = Object.values(values).flat();
    const log = kind === "loss" && Math.max(...all) > LOG_ABOVE;
    const vertical = log ? { log, ticks: logTicks(Math.max(...all) * 1.2), range: [0, Math.max(...all) * 1.1] }
      : around([0, ...all], 5);
    const unit = kind === "loss" ? `loss (nats${log ? ", logarithmic" : ""})` : "accuracy (%)";
    const horizontal = { range: [-0.02, 1.02], ticks: ticks(0, 1, 5), label: "t: pretrained (0) to fine-tuned (1)" };
    const { root, x, y } = frame(container, 270, horizontal, { ...vertical, label: unit },
      `${unit} on the four splits along the linear path; the numbers are in the table below.`);
    for (const [split, line] of Object.entries(values)) {
      const group = svg("g", { class: `line ${split}`, "data-split": split });
      const points = line.map((value, i) => `${x(t[i])} ${y(value)}`);
      group.append(svg("path", { class: "stroke", d: `M${points.join("L")}` }));
      line.forEach((value, i) => {
        const mark = svg("path", { class: "at", d: MARKS[split], transform: `translate(${points[i]})` });
        const digits = kind === "loss" ? 3 : 1;
        mark.append(svg("title", {}, `${split}, t = ${t[i].toFixed(2)}: ${minus(value.toFixed(digits))}`));
        group.append(mark);
      });
      root.append(group);
    }
  }

  function legendMark(split) {
    const root = svg("svg", { class: `mark ${split}`, viewBox: "-6 -6 12 12", "aria-hidden": "true" });
    root.append(svg("path", { d: MARKS[split] }));
    return root;
  }

  return { tradeOff, curves, legendMark };
})();
