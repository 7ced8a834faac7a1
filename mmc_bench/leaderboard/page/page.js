// The table that stands in the page, made sortable and filterable; the view is kept in the address's hash.

(() => {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const table = document.getElementById("results");
  if (!table) return;

  const DEFAULTS = { protocol: payload.protocol, sort: "tier", dir: "ascending", q: "", dataset: "", backbone: "", rate: "", without: "", group: "1",
    plot: "", row: "" };
  const HASH_DELAY = 150; // ms; browsers limit how often the address may change
  const rows = payload.rows;
  const settings = new Map(payload.settings.map((setting, index) => [setting.id, { ...setting, index }]));
  const collator = new Intl.Collator("en", { numeric: true });
  const byId = (id) => document.getElementById(id);
  const inputs = { q: byId("filter-search"), dataset: byId("filter-dataset"), backbone: byId("filter-backbone"),
    rate: byId("filter-rate") };
  const protocolButtons = [...document.querySelectorAll("input[name=protocol]")];
  const needBoxes = [...document.querySelectorAll("input[name=need]")];
  const lines = new Map([...table.querySelectorAll("tr[data-row]")].map((line) => [Number(line.dataset.row), line]));
  const groups = [...table.tBodies].map((body) => ({ body, id: body.dataset.setting,
    protocol: body.dataset.protocol, title: body.rows[0] }));
  const flat = table.createTBody();
  const headers = [...table.tHead.rows[0].cells];

  const settingName = ({ dataset, note, backbone, cue_rate: rate }) =>
    [dataset, note, backbone, rate].filter((part) => part !== "").join(" · ");
  const methodName = (row) => (row.note ? `${row.method} ${row.note}` : row.method);
  const rowName = (row) => `${settingName(settings.get(row.setting))} / ${methodName(row)}`;

  let state = readHash();
  let shown = new Set();
  let placed = "";
  let points = new Map();

  // --- the view, and the hash that tells it

  function readHash() {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    const known = Object.keys(DEFAULTS).filter((key) => key in given);
    const read = { ...DEFAULTS, ...Object.fromEntries(known.map((key) => [key, given[key]])) };
    if (!headers.some((header) => header.dataset.key === read.sort)) read.sort = DEFAULTS.sort;
    if (!(read.protocol in payload.protocols)) read.protocol = DEFAULTS.protocol;
    if (read.dir !== "descending") read.dir = "ascending";
    return read;
  }

  let hashTimer = 0;
  function writeHash() {
    clearTimeout(hashTimer);
    hashTimer = setTimeout(() => {
      const changed = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
      const hash = new URLSearchParams(changed).toString();
      if (hash !== location.hash.slice(1)) history.replaceState(null, "", `#${hash}`);
    }, HASH_DELAY);
  }

  function change(part) {
    state = { ...state, ...part };
    show();
    writeHash();
  }

  function showControls() {
    for (const [key, input] of Object.entries(inputs)) {
      if (input.value !== state[key]) input.value = state[key];
      if (input.value !== state[key]) state[key] = ""; // a choice that this leaderboard does not have
    }
    const without = state.without.split(",");
    for (const button of protocolButtons) button.checked = button.value === state.protocol;
    if (protocolButtons.length) byId("meaning").textContent = payload.protocols[state.protocol];
    for (const part of document.querySelectorAll("[data-protocol]")) part.hidden = part.dataset.protocol !== state.protocol;
    for (const box of needBoxes) box.checked = !without.includes(box.value);
    byId("group").checked = state.group === "1";
    byId("reset").hidden = ["q", "dataset", "backbone", "rate", "without"].every((key) => state[key] === "");
  }

  // --- filtering

  function settingFits(setting) {
    return (!state.dataset || setting.dataset === state.dataset) && (!state.backbone || setting.backbone === state.backbone)
      && (!state.rate || setting.cue_rate === Number(state.rate));
  }

  function methodFits(row) {
    const without = state.without.split(",").filter(Boolean);
    // A method whose needs are unknown may need one of these.
    const satisfied = !without.length || (row.needs !== null && !row.needs.some((need) => without.includes(need)));
    return satisfied && methodName(row).toLowerCase().includes(state.q.trim().toLowerCase());
  }

  function fitting() {
    const own = rows.filter((row) => row.protocol === state.protocol);
    const results = own.filter((row) => !row.pretrained && settingFits(settings.get(row.setting)) && methodFits(row));
    const inUse = new Set(results.map((row) => row.setting));
    const references = own.filter((row) => row.pretrained && inUse.has(row.setting));
    return { results, inUse, all: new Set([...results, ...references]) };
  }

  // --- sorting

  const SORTED_BY = {
    tier: (row) => row.tier,
    method: methodName,
    setting: (row) => settingName(settings.get(row.setting)),
    paired: (row) => row.paired && row.paired.difference[0],
    gap: (row) => row.gap && row.gap[0],
    standing: (row) => (row.disputed ? 0 : row.standing === "verified" ? 2 : 1),
    needs: (row) => row.needs && row.needs.join(", "),
    seeds: (row) => row.seeds.length,
  };

  function sortValue(row) {
    if (state.sort in SORTED_BY) return SORTED_BY[state.sort](row);
    const pair = row.values[state.sort];
    return pair ? pair[0] : null;
  }

  // What has no value comes last, whichever way; equals keep the order of the leaderboard.
  function order() {
    const grouped = state.group === "1";
    const way = state.dir === "ascending" ? 1 : -1;
    const keyed = rows.map((row, index) => ({ index, value: sortValue(row) ?? null,
      pinned: grouped && row.pretrained ? 0 : 1 }));
    keyed.sort((a, b) => a.pinned - b.pinned || (a.value === null) - (b.value === null)
      || (a.value === null || a.value === b.value ? 0
        : way * (typeof a.value === "string" ? collator.compare(a.value, b.value) : a.value - b.value))
      || a.index - b.index);
    return keyed.map(({ index }) => index);
  }

  function place() {
    const key = [state.sort, state.dir, state.group].join();
    if (placed === key) return;
    placed = key;
    const grouped = state.group === "1";
    const sorted = order();
    table.classList.toggle("grouped", grouped);
    if (grouped) {
      const way = state.sort === "setting" && state.dir === "descending" ? -1 : 1;
      const name = ({ setting, protocol }) => `${setting} ${protocol}`;
      const parts = new Map(groups.map(({ body, title }) => [name(body.dataset), [title]]));
      for (const index of sorted) parts.get(name(rows[index])).push(lines.get(index));
      for (const { body } of groups) {
        const wanted = parts.get(name(body.dataset));
        if (!same(body.rows, wanted)) body.replaceChildren(...wanted);
      }
      const wanted = way === 1 ? groups : groups.toReversed();
      if (!same([...table.tBodies].filter((body) => body !== flat), wanted.map(({ body }) => body))) {
        table.append(...wanted.map(({ body }) => body), flat);
      }
    } else {
      flat.replaceChildren(...sorted.map((index) => lines.get(index)));
    }
    for (const header of headers) {
      if (header.dataset.key === state.sort) header.setAttribute("aria-sort", state.dir);
      else header.removeAttribute("aria-sort");
    }
  }

  const same = (present, wanted) => present.length === wanted.length && wanted.every((item, i) => item === present[i]);

  function sortBy(header) {
    const { key, first } = header.dataset;
    const other = { ascending: "descending", descending: "ascending" };
    change({ sort: key, dir: state.sort === key ? other[state.dir] : first });
  }

  // --- showing

  function show() {
    showControls();
    place();
    const { results, inUse, all } = fitting();
    const changed = all.size !== shown.size || [...all].some((row) => !shown.has(row));
    shown = all;
    if (changed) {
      rows.forEach((row, index) => { lines.get(index).hidden = !all.has(row); });
      for (const { id, title } of groups) title.hidden = !inUse.has(id);
    }
    const own = rows.filter((row) => row.protocol === state.protocol && !row.pretrained);
    const places = new Set(own.map((row) => row.setting));
    const count = `${results.length} of ${own.length} results shown, in ${inUse.size} of ${places.size} settings`;
    if (byId("count").textContent !== count) byId("count").textContent = count;
    byId("none").hidden = results.length > 0;
    showPlot(inUse);
    showDetails();
  }

  let drawn = "";
  function showPlot(inUse) {
    const usable = payload.settings.filter((setting) => inUse.has(setting.id));
    const chosen = usable.find((setting) => settingName(setting) === state.plot) ?? usable[0];
    const picture = chosen ? [chosen.id, ...usable.map(({ id }) => id), ...[...shown].map(({ id }) => id)].join() : "";
    if (picture === drawn) return;
    drawn = picture;
    const select = byId("plot-setting");
    select.replaceChildren(...usable.map((setting) => new Option(settingName(setting), settingName(setting), false,
      setting === chosen)));
    draw(chosen);
  }

  function draw(setting) {
    points = new Map();
    const usable = [...shown].filter((row) => setting && row.setting === setting.id
      && row.values.NC?.[0] != null && row.values.cue_reliance?.[0] != null);
    if (!usable.length) {
      byId("trade-off").replaceChildren();
      return;
    }
    const percent = (pair) => pair.map((value) => (value === null ? null : 100 * value));
    points = charts.tradeOff(byId("trade-off"), usable.map((row) => ({ id: rows.indexOf(row), name: methodName(row),
      pretrained: row.pretrained, x: row.values.cue_reliance, y: percent(row.values.NC) })), settingName(setting));
  }

  function light(index, on) {
    lines.get(index).classList.toggle("lit", on);
    points.get(index)?.classList.toggle("lit", on);
    const point = points.get(index);
    if (on && point && point.nextSibling) point.parentNode.append(point); // to the front
  }

  function showDetails() {
    const row = state.row && rows.find((candidate) => candidate.protocol === state.protocol
      && rowName(candidate) === state.row);
    if (row && details.dialog.dataset.row !== state.row) {
      details.dialog.dataset.row = state.row;
      details.open(row, settingName(settings.get(row.setting)));
    } else if (!row && details.dialog.open) details.dialog.close();
  }

  // --- wiring

  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(header));
  }
  for (const [key, input] of Object.entries(inputs)) input.addEventListener("input", () => change({ [key]: input.value }));
  for (const button of protocolButtons) button.addEventListener("change", () => change({ protocol: button.value }));
  const uncheckedNeeds = () => needBoxes.filter((box) => !box.checked).map((box) => box.value).join();
  for (const box of needBoxes) box.addEventListener("change", () => change({ without: uncheckedNeeds() }));
  byId("group").addEventListener("change", (event) => change({ group: event.target.checked ? "1" : "0" }));
  byId("plot-setting").addEventListener("change", (event) => change({ plot: event.target.value }));
  byId("reset").addEventListener("click", () => {
    change({ q: "", dataset: "", backbone: "", rate: "", without: "" });
    inputs.q.focus();
  });

  for (const link of document.querySelectorAll("a.jump")) { // the hash is the view's
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const target = byId(link.hash.slice(1));
      target.scrollIntoView();
      target.focus({ preventScroll: true });
    });
  }

  const indexOf = (target) => {
    const holder = target instanceof Element && target.closest("[data-row]");
    return holder ? Number(holder.dataset.row) : null;
  };
  for (const place_ of [table, byId("trade-off")]) {
    place_.addEventListener("click", (event) => {
      const index = indexOf(event.target);
      if (index === null || (!event.target.closest("a") && String(getSelection()))) return;
      event.preventDefault();
      change({ row: rowName(rows[index]) });
    });
    for (const [kind, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
      place_.addEventListener(kind, (event) => {
        const index = indexOf(event.target);
        if (index !== null && lines.get(index).classList.contains("lit") !== on) light(index, on);
      });
    }
  }
  details.dialog.addEventListener("close", () => {
    if (details.dialog.open) return; // the event comes late: another row was opened meanwhile
    delete details.dialog.dataset.row;
    change({ row: "" });
  });
  window.addEventListener("hashchange", () => {
    state = readHash();
    show();
  });
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    drawn = "";
    showPlot(new Set([...shown].map((row) => row.setting)));
  });

  for (const section of document.querySelectorAll(".scripted")) section.hidden = false;
  show();
})();
