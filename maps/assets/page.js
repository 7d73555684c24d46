/* Draws the answers on the map that Folium made, and the panel beside it.
   Every text of the data enters the page as a text node, never as HTML. */
function zoomlocPage(map, groups, data) {
  "use strict";
  const ZOOM_COLOURS = ["#38bdf8", "#34d399", "#fde047", "#fb923c", "#f87171", "#c4b5fd", "#f9a8d4"];
  const BELIEF = "#e6007e", CASING = "#10151c", ANSWER = "#e11d48", TRUTH = "#16a34a", CANDIDATE = "#22d3ee";
  const GUESS = "#78828e"; // a place that is no answer does not shine
  const pinOf = fill => '<svg viewBox="0 0 28 38" width="28" height="38"><path d="M14 1.5C7 1.5 1.8 6.9 1.8 13.6 1.8 22.7' +
    ' 14 36.5 14 36.5S26.2 22.7 26.2 13.6C26.2 6.9 21 1.5 14 1.5Z" fill="' + fill + '" stroke="#fff"' +
    ' stroke-width="2.2"/><circle cx="14" cy="13.6" r="4.6" fill="#fff"/></svg>';
  const DIAMOND = '<svg viewBox="0 0 26 26" width="26" height="26"><path d="M13 2 24 13 13 24 2 13Z" fill="' + TRUTH +
    '" stroke="#fff" stroke-width="2.4"/><path d="m8.4 13.2 3.2 3.2 6-6.2" fill="none" stroke="#fff" stroke-width="2.4"/></svg>';
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const answers = data.answers;
  const several = answers.length > 1;
  const legendBox = el("details", "zl-legend");
  let current = 0, labels = [], replaying = 0;

  // 1. small things: elements, words, numbers

  function el(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }
  function into(parent, ...children) { parent.append(...children); return parent; }
  function button(className, text, onclick) {
    const node = el("button", className, text);
    node.type = "button";
    node.addEventListener("click", onclick);
    return node;
  }
  function markColour(answer) { return answer.words.is_guess ? GUESS : ANSWER; }
  function zoomName(answer, index) {
    return index === answer.path.length - 1 && index > 0 ? "terminal cell" : "zoom " + index;
  }
  function colour(index) { return ZOOM_COLOURS[index % ZOOM_COLOURS.length]; }
  function lastParts(name, parts) { return name.split(/[\\/]/).slice(-parts).join("/") || name; }
  const unique = new Set(answers.map(answer => lastParts(answer.photo, 1))).size === answers.length;
  function fileName(name) { return lastParts(name, unique ? 1 : 2); } // drives repeat their file names

  // 2. the selected answer on the map

  function clear() {
    for (const name of ["finer", "belief", "path", "candidates", "alternatives", "answer", "truth"]) groups[name].clearLayers();
    labels = [];
  }
  function finer(answer) {
    for (const key of answer.finer) {
      const picture = data.finer[key];
      L.imageOverlay(picture.uri, picture.bounds, {pane: "finer", alt: ""}).addTo(groups.finer);
    }
  }
  function belief(answer) {
    for (const [low, high, words, , density] of answer.posterior) {
      const strength = 1 + Math.log10(density) / data.belief_decades; // density: share of the densest
      L.rectangle([low, high], {pane: "belief", className: "zl-belief", color: BELIEF, weight: 0.5,
        opacity: 0.35 * strength, fillColor: BELIEF, fillOpacity: 0.62 * strength ** 1.5})
        .bindTooltip(el("span", "", words + " of the belief"), {sticky: true}).addTo(groups.belief);
    }
  }
  function path(answer) {
    answer.path.forEach((cell, index) => {
      L.rectangle(cell.bounds, {pane: "path", color: CASING, weight: 5, opacity: 0.55, fill: false,
        interactive: false}).addTo(groups.path);
      L.rectangle(cell.bounds, {pane: "path", className: "zl-outline", color: colour(index), weight: 2.5,
        opacity: 1, fill: false}).bindTooltip(into(el("span"), zoomName(answer, index) + " · " +
        cell.size + " · ", el("code", "", cell.quadkey)), {sticky: true}).addTo(groups.path);
      const words = zoomName(answer, index) + " · " + cell.size;
      label(groups.path, cell.bounds[1][0], cell.bounds[0][1], words,
        {colour: colour(index), cell: cell});
    });
  }
  function candidates(answer) {
    answer.candidates.forEach((candidate, index) => {
      L.circleMarker(candidate.place, {pane: "candidates", className: "zl-candidate",
        radius: 4 + 10 * Math.sqrt(candidate.probability || 0), color: "#fff", weight: 2, fillColor: CANDIDATE,
        fillOpacity: 0.3}).bindTooltip(into(el("span"), "candidate " + (index + 1) + " · " +
        candidate.words + " · ", el("code", "", candidate.quadkey))).addTo(groups.candidates);
      if (candidate.probability >= 0.05) {
        label(groups.candidates, ...candidate.place, candidate.words, {dx: 12, dy: 8});
      }
    });
  }
  function alternatives(answer) {
    for (const other of answer.alternatives) {
      marker(other.place, el("span", "", String(other.number)), [20, 20], [10, 10], "zl-other",
        "alternative " + other.number + " · " + other.words + " · " + other.text, 700).addTo(groups.alternatives);
    }
  }
  function answerMarks(answer) {
    const said = answer.words;
    for (const [radius, words, dash] of [[answer.radius90_m, "90 % of the belief within " + said.radius90, "7 6"],
      [answer.radius50_m, "50 % of the belief within " + said.radius50, null]]) {
      if (!(radius > 0)) continue;
      L.circle(answer.place, {pane: "answer", radius: radius, color: CASING, weight: 4, opacity: 0.45, fill: false,
        interactive: false}).addTo(groups.answer);
      L.circle(answer.place, {pane: "answer", className: "zl-radius", radius: radius, color: "#fff", weight: 2,
        dashArray: dash, fill: false}).bindTooltip(el("span", "", words), {sticky: true}).addTo(groups.answer);
    }
    if (answer.bearing_deg !== null) {
      marker(answer.place, cone(answer), [160, 160], [80, 80], "zl-heading", "", 800).addTo(groups.answer);
    }
    marker(answer.place, pinOf(markColour(answer)), [28, 38], [14, 37], "zl-answer",
      [said.called + ": " + said.sure, ...said.warnings].join("\n"), 1000).addTo(groups.answer);
  }
  function truthMarks(answer) {
    if (!answer.truth) return;
    const line = [answer.place, answer.truth];
    L.polyline(line, {pane: "answer", color: CASING, weight: 5, opacity: 0.6, interactive: false}).addTo(groups.truth);
    L.polyline(line, {pane: "answer", className: "zl-error", color: "#fff", weight: 2.5, dashArray: "2 7",
      interactive: false}).addTo(groups.truth);
    marker(answer.truth, DIAMOND, [26, 26], [13, 13], "zl-truth", "the true place", 900).addTo(groups.truth);
    const middle = [(line[0][0] + line[1][0]) / 2, (line[0][1] + line[1][1]) / 2];
    label(groups.truth, ...middle, answer.words.off, {kind: "error", line: line});
  }
  function marker(place, svg, size, anchor, className, words, zIndexOffset) {
    const icon = L.divIcon({className: className, html: svg, iconSize: size, iconAnchor: anchor});
    const made = L.marker(place, {icon: icon, alt: words, zIndexOffset: zIndexOffset, keyboard: false,
      interactive: words !== ""});
    return words ? made.bindTooltip(el("span", "", words)) : made;
  }
  function cone(answer) { // on screen, of one size at every scale; the map is north-up
    const half = Math.min(Math.max(answer.bearing_spread_deg || 0, 8), 179), radius = 74;
    const rim = angle => (radius * Math.sin(angle * Math.PI / 180)).toFixed(1) + " " +
      (-radius * Math.cos(angle * Math.PI / 180)).toFixed(1);
    return '<svg viewBox="-80 -80 160 160" width="160" height="160"><path d="M0 0 L' + rim(answer.bearing_deg - half) +
      " A " + radius + " " + radius + " 0 " + (half > 90 ? 1 : 0) + " 1 " + rim(answer.bearing_deg + half) +
      ' Z" fill="#facc15" fill-opacity="0.5" stroke="#fff" stroke-width="1.5"/></svg>';
  }
  function heading(answer) {
    const spread = answer.bearing_spread_deg;
    return answer.bearing_deg.toFixed(0) + "°" + (spread === null ? "" : " ± " + spread.toFixed(0) + "°");
  }

  // 3. labels: shown where they have room, beside each other rather than over each other

  function label(group, lat, lng, words, options) {
    const node = el("span", "zl-label " + (options.kind || (options.colour ? "" : "plain")), words);
    if (options.colour) node.style.background = options.colour;
    const icon = L.divIcon({className: "", html: node, iconSize: [0, 0]});
    const pin = L.marker([lat, lng], {icon: icon, interactive: false, keyboard: false, zIndexOffset: 2000}).addTo(group);
    labels.push({pin, node, words, options});
  }
  function side(bounds) { // of a box, in screen pixels
    return map.latLngToContainerPoint(bounds[0]).x - map.latLngToContainerPoint([bounds[0][0], bounds[1][1]]).x;
  }
  function markers(answer) { // boxes on the screen that no label may cover
    const boxes = [], pin = map.latLngToContainerPoint(answer.place);
    boxes.push({x: pin.x - 15, y: pin.y - 39, w: 30, h: 42});
    if (answer.truth) {
      const truth = map.latLngToContainerPoint(answer.truth);
      boxes.push({x: truth.x - 14, y: truth.y - 14, w: 28, h: 28});
    }
    for (const other of answer.alternatives) {
      const at = map.latLngToContainerPoint(other.place);
      boxes.push({x: at.x - 11, y: at.y - 11, w: 22, h: 22});
    }
    return boxes;
  }
  function placeLabels() {
    const taken = markers(answers[current]);
    for (const {pin, node, words, options} of labels) {
      const pixels = options.cell ? Math.abs(side(options.cell.bounds)) : 0;
      const run = options.line && map.latLngToContainerPoint(options.line[0])
        .distanceTo(map.latLngToContainerPoint(options.line[1]));
      const text = options.cell && pixels > 300 ? words + " · " + options.cell.quadkey : words;
      const at = map.latLngToContainerPoint(pin.getLatLng());
      const box = {w: 7 * text.length + 12, h: 18, x: at.x + (options.dx || 0),
        y: at.y + (options.cell ? -18 : options.dy || 0)};
      if (options.line) { box.x -= box.w / 2; box.y -= box.h / 2; }
      const clash = other => box.x < other.x + other.w && other.x < box.x + box.w &&
        box.y < other.y + other.h && other.y < box.y + box.h;
      for (let tries = 0; options.cell && tries < 12 && taken.some(clash); tries++) {
        const hit = taken.find(clash); // outlines' labels move along the edge, others give way
        box.x = hit.x + hit.w + 3;
      }
      const shown = !taken.some(clash) && (options.cell ? pixels >= 34 : !options.line || run >= 90);
      node.style.display = shown ? "" : "none";
      if (!shown) continue;
      taken.push(box);
      node.textContent = text;
      node.style.left = box.x - at.x + "px";
      node.style.top = box.y - at.y + "px";
    }
  }

  // 4. where to look

  function room(padding) { // beside an open legend rather than under it
    const beside = legendBox.open ? legendBox.offsetWidth + 20 : padding;
    return {paddingTopLeft: [padding, padding], paddingBottomRight: [beside, padding], maxZoom: 22};
  }
  function go(bounds, padding) {
    const options = room(padding || 30);
    if (still) map.fitBounds(bounds, {...options, animate: false});
    else map.flyToBounds(bounds, {...options, duration: 0.9});
  }
  function around(answer) { // the answer, its 90 % circle, its truth, its last cells
    const bounds = L.latLngBounds(answer.path[Math.max(answer.path.length - 2, 0)].bounds);
    if (answer.truth) bounds.extend(answer.truth);
    if (answer.radius90_m > 0) {
      bounds.extend(L.latLng(answer.place).toBounds(2 * Math.min(answer.radius90_m, answer.path[0].size_m)));
    }
    return bounds;
  }
  function both(answer, other) { return L.latLngBounds([answer.place, other.place]).pad(0.15); }
  function stopReplay() {
    clearTimeout(replaying);
    replaying = 0;
    map.getContainer().classList.remove("zl-replaying");
  }
  function replay() { // root -> ... -> terminal cell, one zoom a step
    stopReplay();
    const answer = answers[current];
    map.getContainer().classList.add("zl-replaying");
    (function step(index) {
      const last = index >= answer.path.length;
      go(last ? around(answer) : answer.path[index].bounds, last ? 30 : 60);
      if (last) return stopReplay();
      replaying = setTimeout(() => step(index + 1), still ? 700 : 1500);
    })(0);
  }

  // 5. the panel

  const panel = document.getElementById("zoomloc-panel");
  const banner = into(map.getContainer(), el("div", "zl-banner")).lastChild;
  const info = el("div", "zl-info"), list = el("ul", "zl-list"), rows = [];

  function row(table, name, ...cells) {
    into(table, into(el("tr"), el("th", "", name), into(el("td"), ...cells)));
  }
  function copyable(text) {
    const value = el("span", "zl-place", text);
    const copy = button("zl-button tiny", "copy", () => {
      const range = document.createRange();
      range.selectNodeContents(value);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy"); // works from a file, where navigator.clipboard may not
      copy.textContent = "copied";
      setTimeout(() => { copy.textContent = "copy"; }, 1200);
    });
    return [value, copy];
  }
  function warn(answer) { // on the map too: the panel may be out of sight
    banner.replaceChildren(...answer.words.warnings.map(words => el("p", "", words)));
    banner.hidden = !answer.words.warnings.length;
    for (const words of answer.words.warnings) info.append(el("p", "verdict warn", words));
  }
  function describe(answer) {
    info.replaceChildren();
    info.scrollTop = 0;
    if (answer.thumbnail) {
      const picture = el("img");
      picture.src = answer.thumbnail;
      picture.alt = "the photo";
      info.append(picture);
    }
    const name = el("h2", "", fileName(answer.photo)), said = answer.words;
    name.title = answer.photo;
    info.append(name);
    warn(answer);
    info.append(el("p", "verdict", said.called + ": " + said.sure));
    const table = el("table");
    row(table, "lat, lng", ...copyable(answer.text));
    row(table, "90 % within", said.radius90);
    row(table, "50 % within", said.radius50);
    if (answer.bearing_deg !== null) row(table, "heading", heading(answer));
    if (answer.truth) {
      row(table, "truth", ...copyable(answer.truth_text));
      row(table, "off by", el("b", "", said.off));
    }
    if (said.given) row(table, "given", said.given);
    for (const other of answer.alternatives) {
      row(table, "or else", el("span", "zl-number", String(other.number)), other.words,
        button("zl-button tiny", "show", () => { stopReplay(); go(both(answer, other)); }));
    }
    if (answer.hidden_mass > 0.0005) row(table, "not drawn", said.hidden + " of the belief, spread thin");
    const actions = into(el("div", "zl-buttons"),
      button("zl-button main", "▶ replay zoom", replay),
      button("zl-button", "whole path", () => { stopReplay(); go(answer.path[0].bounds); }),
      button("zl-button", "the place", () => { stopReplay(); go(around(answer)); }));
    into(info, table, actions, el("h3", "", "Zoom path: size and quadkey of each cell"), zooms(answer));
    if (answer.made_by.length) {
      const made = into(el("details"), el("summary", "", "made by"));
      for (const [key, value] of answer.made_by) made.append(el("div", "", key + ": " + value));
      info.append(made);
    }
  }
  function zooms(answer) {
    const box = el("div", "zl-zooms");
    answer.path.forEach((cell, index) => {
      const line = button("", "", () => { stopReplay(); go(cell.bounds, 60); });
      const swatch = el("span", "swatch"), key = el("code", "", cell.quadkey);
      swatch.style.borderColor = colour(index);
      key.title = cell.quadkey;
      into(box, into(line, swatch, el("span", "what", zoomName(answer, index)),
        el("span", "size", cell.size), key));
    });
    return box;
  }
  function listRow(answer, index) {
    const flag = answer.not_here ? "not here" : answer.unknown ? "unknown" : "";
    const line = button("", "", () => select(index, true));
    into(line, el("span", "name", fileName(answer.photo)), el("span", "figure flag", flag),
      el("span", "figure", answer.not_here ? "" : answer.words.probability)); // it is one if from here
    if (answer.error_m !== null) line.append(el("span", "figure", answer.words.off));
    line.title = answer.photo;
    rows.push(line);
    into(list, into(el("li"), line));
  }
  function head() {
    const box = el("header", "zl-head");
    into(box, el("h1", "", data.region));
    into(box, el("p", "", several ? answers.length + " photos located by zoomloc · name, probability" +
      (answers.some(a => a.error_m !== null) ? ", error" : "") : "located by zoomloc"));
    return box;
  }

  // 6. around the map: legend, attribution, all answers

  function control(node, position) {
    const made = L.control({position: position});
    made.onAdd = () => { L.DomEvent.disableClickPropagation(node).disableScrollPropagation(node); return node; };
    made.addTo(map);
  }
  function legend() {
    const box = legendBox;
    box.open = window.innerWidth > 760;
    box.append(el("summary", "", "Legend"));
    const svg = inner => '<svg viewBox="0 0 44 18">' + inner + "</svg>";
    const item = (drawing, words) => { // drawing: our own constants only
      const line = el("div");
      line.innerHTML = drawing;
      into(box, into(line, el("span", "", words)));
    };
    const any = test => answers.some(test);
    const pin = fill => '<svg viewBox="-2 -8 48 54">' + pinOf(fill).replace("<svg ", '<svg x="8" ') + "</svg>";
    if (any(a => !a.words.is_guess)) item(pin(ANSWER), "answer");
    if (any(a => a.words.is_guess)) item(pin(GUESS), "best guess, no answer");
    if (any(a => a.alternatives.length)) item(svg('<circle cx="22" cy="9" r="7.5" fill="#fff" stroke="#10151c"' +
      ' stroke-width="1.6"/><text x="22" y="12.6" font-size="10" font-weight="700" text-anchor="middle">1</text>'),
      "alternative, numbered by its probability");
    if (any(a => a.truth)) item('<svg viewBox="-10 -2 46 30">' + DIAMOND + "</svg>", "true place, dotted line to it");
    item(svg(ZOOM_COLOURS.slice(0, data.deepest).map((c, i) => '<rect x="' + (2 + 3 * i) + '" y="' + (1 + 2 * i) +
      '" width="' + (38 - 6 * i) + '" height="' + Math.max(16 - 4 * i, 2) + '" fill="none" stroke="' + c +
      '" stroke-width="1.6"/>').join("")), "zoom path, root to terminal cell");
    if (any(a => a.posterior.length)) item(svg([1, .67, .33, .1].map((s, i) => '<rect x="' + 11 * i + '" width="11" height="18" fill="' +
      BELIEF + '" fill-opacity="' + (0.1 + 0.75 * s ** 1.5) + '"/>').join("")), "belief per area, 1 to 1/" + 10 ** data.belief_decades + " of its peak");
    if (any(a => a.candidates.length)) item(svg('<circle cx="22" cy="9" r="7" fill="' + CANDIDATE +
      '" fill-opacity=".6" stroke="#334" stroke-width="1.5"/>'), "candidate, larger = likelier");
    if (any(a => a.radius90_m > 0)) item(svg('<g fill="none" stroke="#334" stroke-width="2"><path d="M1 9h18"/>' +
      '<path d="M24 9h20" stroke-dasharray="5 4"/></g>'), "circle of 50 %, of 90 % of the belief");
    if (any(a => a.bearing_deg !== null)) item(svg('<path d="M22 17 12 3a17 17 0 0 1 20 0Z" fill="#facc15" fill-opacity=".7" stroke="#554"/>'),
      "heading");
    control(box, "bottomright");
  }
  function attribution() {
    const box = el("div", "leaflet-control-attribution zl-attribution");
    const words = data.attribution.length ? "Imagery: " + data.attribution.join(" · ") : "Imagery: source not stated";
    for (const part of (words + (data.licence ? " · licence: " + data.licence : "")).split(/(https?:\/\/[^\s<>"']+)/)) {
      if (!/^https?:\/\//.test(part)) { box.append(part); continue; }
      const link = el("a", "", part);
      link.href = part;
      link.rel = "noopener noreferrer";
      link.target = "_blank";
      box.append(link);
    }
    box.append(" · Leaflet");
    control(box, "bottomright");
  }
  function overview() {
    for (const ring of data.outline) {
      L.polygon(ring, {pane: "outline", color: "#fff", weight: 1.5, opacity: 0.9, dashArray: "4 5", fill: false,
        interactive: false}).addTo(groups.outline);
    }
    if (!several) return;
    answers.forEach((answer, index) => {
      const name = into(el("span"), [fileName(answer.photo), answer.words.sure, ...answer.words.warnings,
        ...(answer.error_m === null ? [] : ["off by " + answer.words.off])].join("\n"));
      if (answer.truth) {
        L.polyline([answer.place, answer.truth], {pane: "outline", color: "#fff", weight: 1.2, opacity: 0.7,
          interactive: false}).addTo(groups.errors);
      }
      L.circleMarker(answer.place, {pane: "outline", className: "zl-dot", radius: 4.5, color: "#fff", weight: 1.5,
        fillColor: markColour(answer), fillOpacity: 0.95})
        .bindTooltip(name).on("click", () => select(index, false)).addTo(groups.others);
    });
  }

  function select(index, move) {
    stopReplay();
    if (rows[current]) rows[current].removeAttribute("aria-current");
    current = index;
    const answer = answers[index];
    if (rows[index]) {
      rows[index].setAttribute("aria-current", "true");
      rows[index].scrollIntoView({block: "nearest"});
    }
    clear();
    for (const draw of [finer, belief, path, candidates, alternatives, answerMarks, truthMarks]) draw(answer);
    describe(answer);
    if (move) go(around(answer));
    placeLabels();
  }

  answers.forEach((answer, index) => { if (several) listRow(answer, index); });
  into(panel, head(), ...(several ? [list] : []), info);
  attribution();
  legend();
  overview();
  map.on("zoomend moveend", placeLabels);
  map.on("dragstart", stopReplay);
  map.fitBounds(several ? data.bounds : answers[0].path[0].bounds, {...room(30), animate: false});
  select(0, false);
  return {select, replay, answers};
}
