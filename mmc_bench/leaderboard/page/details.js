// The window with everything about one row: its path curves, its figures, who ran it, on what, and its records.

const details = (() => {
  const SPLITS = { NC: "no cue", C: "cue", RC: "randomised cue", RI: "randomised image" };
  const dialog = document.getElementById("details");
  let redraw = () => {};

  function node(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  // Text from a submission, kept from reordering what stands beside it.
  const bdi = (text) => node("bdi", { textContent: text });

  function number(value, digits, sign = "") {
    const text = value.toFixed(digits);
    if (!/[1-9]/.test(text)) return text.replace("-", "");
    return (value > 0 ? sign : "") + text.replace("-", "−");
  }

  function figure(pair, factor, digits, sign = "") {
    if (!pair || pair[0] === null) return "–";
    const spread = pair[1] === null ? "" : ` ± ${number(factor * pair[1], digits)}`;
    return number(factor * pair[0], digits, sign) + spread;
  }

  function list(entries) {
    return node("dl", {}, ...entries.map(([term, ...what]) => node("div", {}, node("dt", { textContent: term }),
      node("dd", {}, ...what))));
  }

  function figures(row) {
    const { values, paired } = row;
    const entries = [["Worst split", figure(values.worst_split, 100, 1)]];
    if (paired) {
      const mark = paired.same_start ? "" : " †";
      entries.push([`vs ${paired.baseline}`, figure(paired.difference, 100, 1, "+") + mark]);
    }
    if (row.gap) entries.push(["Gap", figure(row.gap, 100, 1, "+")]);
    entries.push(["Cue reliance", figure(values.cue_reliance, 1, 2)], ["Barrier C", figure(values.barrier_C, 1, 2)],
      ["Barrier NC", figure(values.barrier_NC, 1, 2)], ["Seconds", figure(values.seconds, 1, 1)]);
    const element = list(entries);
    element.className = "figures";
    return element;
  }

  function curveTable(curves) {
    const head = node("tr", {}, node("th", { scope: "col", textContent: "t" }));
    for (const split of Object.keys(SPLITS)) {
      head.append(node("th", { scope: "col", textContent: `${split} %` }),
        node("th", { scope: "col", textContent: `${split} loss` }));
    }
    const body = curves.t.map((t, i) => {
      const line = node("tr", {}, node("th", { scope: "row", textContent: t.toFixed(2) }));
      for (const split of Object.keys(SPLITS)) {
        const { accuracy, loss } = curves.splits[split];
        line.append(node("td", { textContent: number(100 * accuracy[i], 1) }),
          node("td", { textContent: number(loss[i], 3) }));
      }
      return line;
    });
    const table = node("table", {}, node("thead", {}, head), node("tbody", {}, ...body));
    return node("details", {}, node("summary", { textContent: "The curves as a table" }),
      node("div", { className: "scroller", tabIndex: 0 }, table));
  }

  function curvePart(curves) {
    if (!curves) return [node("p", { className: "hint", textContent: "There is no path: nothing was fine-tuned." })];
    const legend = node("ul", { className: "legend" });
    for (const [split, meaning] of Object.entries(SPLITS)) {
      legend.append(node("li", {}, charts.legendMark(split), `${split} `, node("small", { textContent: meaning })));
    }
    const accuracy = node("div", { className: "chart", id: "accuracy-curves" });
    const loss = node("div", { className: "chart", id: "loss-curves" });
    const part = (kind, factor) => Object.fromEntries(Object.keys(SPLITS).map((split) => [split,
      curves.splits[split][kind].map((value) => factor * value)]));
    redraw = () => {
      charts.curves(accuracy, curves.t, part("accuracy", 100), "accuracy");
      charts.curves(loss, curves.t, part("loss", 1), "loss");
    };
    return [node("h3", { textContent: "Along the linear path" }), legend,
      node("div", { className: "curves" }, accuracy, loss), curveTable(curves)];
  }

  function parameters({ protocol, given, tuning }) {
    const pairs = (content, between) => Object.entries(content).map(([name, text]) => `${name}${between}${text}`);
    const set = pairs(given, " = ").join(", ");
    const by = ` (by the suite, the command or the method’s definition${tuning ? ", before the search" : ""})`;
    const before = set ? [["Given", bdi(set), by]] : [];
    if (!tuning) return [["Parameters", protocol], ...before];
    const chosen = pairs(tuning.chosen, " = ").join(", ") || "the published ones";
    return [["Parameters", `${protocol}: `, bdi(chosen)], ...before,
      ["Chosen", `in ${tuning.trials} trials on seed${tuning.seeds.length > 1 ? "s" : ""} ${tuning.seeds.join(" ")}, drawn from `,
        bdi(pairs(tuning.space, " ").join("; "))],
      ["Close parameters", `${tuning.close} other sets within 1 percentage point of the validation NC of the clean winner`]];
  }

  function provenance(row) {
    const versions = Object.entries(row.versions).flatMap(([name, version], i) => [i ? ", " : "", bdi(name), " ",
      bdi(version)]);
    const again = ({ by, cells, of }) => [bdi(by), ` (${cells} of ${of} cells run again)`];
    const standing = [row.disputed ? "disputed" : row.standing];
    if (row.disputed) standing.push(" by ", ...again(row.disputed));
    else if (row.verified) standing.push(row.standing === "verified" ? " by " : ", run again by ", ...again(row.verified));
    const needs = row.needs === null ? "–" : row.needs.join(", ") || "nothing";
    return list([...parameters(row), ["Run by", bdi(row.by)], ["Standing", ...standing], ["Device", bdi(row.device)],
      ["Precision", bdi(row.precision)], ["Needs", bdi(needs)], ["Seeds", row.seeds.join(" ")],
      ...(row.missing.length ? [["Missing", bdi(row.missing.join(", "))]] : []),
      ["Versions", ...versions]]);
  }

  function record({ path, link }) {
    // Python gives a link to a file below the page, or none.
    const safe = link !== null && link.startsWith("./");
    return node("li", {}, safe ? node("a", { href: link }, bdi(path)) : bdi(path));
  }

  function records(row) {
    const title = row.records.length === 1 ? "1 record" : `${row.records.length} records`;
    const items = node("ul", { className: "records" }, ...row.records.map(record));
    return node("details", { open: row.records.length <= 5 }, node("summary", { textContent: title }), items);
  }

  function open(row, setting) {
    redraw = () => {};
    const title = node("h2", { id: "details-title" }, bdi(row.method));
    if (row.note) title.append(" ", node("small", {}, bdi(row.note)));
    const close = node("button", { type: "button", className: "close", ariaLabel: "Close", textContent: "×" });
    close.addEventListener("click", () => dialog.close());
    dialog.replaceChildren(node("div", { className: "inside" }, node("div", { className: "heading" }, title, close),
      node("p", { className: "hint" }, bdi(setting)), row.summary ? node("p", {}, bdi(row.summary)) : null,
      figures(row), ...curvePart(row.curves), node("h3", { textContent: "Where it comes from" }), provenance(row),
      records(row)));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    redraw();
  }

  // A click beside the window lands on the dialog itself.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  window.addEventListener("resize", () => dialog.open && redraw());

  return { dialog, open };
})();
