"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const frame = document.getElementById("frame"), canvas = document.getElementById("canvas");
  const spacer = document.getElementById("spacer"), tip = document.getElementById("tip");
  const ink = canvas.getContext("2d");
  const AXIS = 34, LABEL = 150, ROW = { hold: 20, wait: 9, member: 14, session: 7, call: 9 }, PAD = 7;

  // Where each row of each lane lies, from the top of the first lane.
  const height = (lane, row) =>
    lane.kind === "client" ? (row === 0 ? ROW.session : ROW.call) : lane.kind === "group" ? ROW.member : row === 0 ? ROW.hold : 14;
  let total = 0;
  for (const lane of data.lanes) {
    lane.top = total;
    lane.at = [];
    let y = PAD;
    for (let row = 0; row < Math.max(lane.rows, 1); row++) {
      lane.at.push(y);
      y += height(lane, row) + 3;
    }
    lane.height = Math.max(y + PAD - 3, 30);
    total += lane.height;
  }

  // What matters ends with the last thing that was done, not with the wait for nothing to happen.
  let last = 1, first = Infinity;
  for (const bar of data.bars) {
    first = Math.min(first, bar.from);
    last = Math.max(last, bar.from, bar.to < data.end ? bar.to : 0);
  }
  for (const mark of data.marks) last = Math.max(last, mark.at);
  for (const fault of data.faults) last = Math.max(last, fault.from);
  for (const spot of data.violations) if (spot.at !== null) last = Math.max(last, spot.at);
  if (first === Infinity) first = 0;
  const whole = [first - (last - first) * 0.02, last + (last - first) * 0.06 + 10];
  let [from, to] = whole, current = -1, hovered = null, width = 0, view = 0, colours = {};

  const marked = new Map();
  data.violations.forEach((spot, place) => spot.lines.forEach((line) => {
    if (!marked.has(line)) marked.set(line, []);
    marked.get(line).push(place);
  }));
  const lines = (thing) => thing.lines || [thing.line];
  const of = (thing, place) => lines(thing).some((line) => (marked.get(line) || []).includes(place));
  const isMarked = (thing) => lines(thing).some((line) => marked.has(line));
  for (const thing of [...data.bars, ...data.marks, ...data.faults]) thing.bad = isMarked(thing);

  const readColours = () => {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["bg", "panel", "ink", "soft", "line", "stripe", "ok", "failed", "unknown", "open", "session", "fault",
      "fault-edge", "bad", "bad-soft", "hold-l", "hold-s", "on-hold", "quiet"]) colours[name] = style.getPropertyValue("--" + name).trim();
  };
  // Red is for violations alone.
  const HUES = [300, 210, 32, 265, 178, 325, 235, 75, 195, 285];
  const hue = (client) => client === null ? "hsl(210 6% 55%)" : `hsl(${HUES[client % HUES.length]} ${colours["hold-s"]} ${colours["hold-l"]})`;
  const x = (at) => LABEL + (at - from) / (to - from) * (width - LABEL);
  const time = (px) => from + (px - LABEL) / (width - LABEL) * (to - from);
  const y = (lane, row = 0) => AXIS + lane.top + lane.at[Math.min(row, lane.at.length - 1)] - frame.scrollTop;
  const clip = (px) => Math.max(LABEL, Math.min(width, px));
  const spell = (at, step) => {
    if (step >= 1e6) return (at / 1e6).toFixed(step % 1e6 ? 1 : 0) + " s";
    if (step >= 1e3) return (at / 1e3).toLocaleString("en", { maximumFractionDigits: 1 }) + " ms";
    return at.toLocaleString("en") + " µs";
  };

  const box = (bar) => {
    const lane = data.lanes[bar.lane];
    const a = x(bar.from), b = Math.max(x(bar.to), a + 2);
    return { a: clip(a), b: clip(b), y: y(lane, bar.row), h: height(lane, bar.row), seen: b >= LABEL && a <= width };
  };
  const spot = (mark) => {
    const lane = data.lanes[mark.lane];
    // Below what is written on a bar.
    return lane.kind === "client" ? y(lane) + ROW.session / 2 : y(lane) + height(lane, 0);
  };
  const onScreen = (lane) => AXIS + lane.top - frame.scrollTop < view && AXIS + lane.top + lane.height - frame.scrollTop > AXIS;

  const draw = () => {
    ink.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    ink.fillStyle = colours.panel;
    ink.fillRect(0, 0, width, view);
    ink.textBaseline = "middle";
    data.lanes.forEach((lane, place) => {
      if (!onScreen(lane)) return;
      const top = AXIS + lane.top - frame.scrollTop;
      if (place % 2) { ink.fillStyle = colours.stripe; ink.fillRect(0, top, width, lane.height); }
    });
    grid();
    shades();
    for (const bar of data.bars) if (onScreen(data.lanes[bar.lane])) drawBar(bar);
    const marks = data.marks.filter((mark) => mark.at >= from && mark.at <= to && onScreen(data.lanes[mark.lane]));
    crowded = marks.length > 600;
    marks.forEach(drawMark);
    violation();
    labels();
    axis();
  };

  const ticks = () => {
    const rough = (to - from) / Math.max(2, (width - LABEL) / 110);
    const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
    const step = Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough));
    const all = [];
    for (let at = Math.ceil(Math.max(from, 0) / step) * step; at <= to; at += step) all.push(at);
    return [all, step];
  };
  const grid = () => {
    ink.fillStyle = colours.line;
    for (const at of ticks()[0]) ink.fillRect(Math.round(x(at)), AXIS, 1, view);
    if (data.quiet !== null && x(data.quiet) >= LABEL) {
      ink.fillStyle = colours.quiet;
      ink.fillRect(Math.round(x(data.quiet)), AXIS, 1.5, view);
    }
  };
  const axis = () => {
    ink.fillStyle = colours.panel;
    ink.fillRect(0, 0, width, AXIS);
    ink.fillStyle = colours.line;
    ink.fillRect(0, AXIS - 1, width, 1);
    const [all, step] = ticks();
    ink.font = "11.5px system-ui, sans-serif";
    ink.textAlign = "center";
    ink.fillStyle = colours.soft;
    for (const at of all) if (x(at) > LABEL + 20 && x(at) < width - 24) ink.fillText(spell(at, step), x(at), AXIS / 2);
    if (data.quiet !== null && x(data.quiet) >= LABEL && x(data.quiet) <= width) {
      ink.fillStyle = colours.panel;
      ink.fillRect(x(data.quiet) - 18, AXIS - 12, 36, 11);
      ink.fillStyle = colours.quiet;
      ink.fillText("quiet", x(data.quiet), AXIS - 7);
    }
  };
  const shades = () => {
    ink.font = "11px system-ui, sans-serif";
    ink.textAlign = "left";
    for (const fault of data.faults) {
      const a = x(fault.from), b = Math.max(x(fault.to), a + 2);
      if (b < LABEL || a > width) continue;
      const lane = fault.lane === null ? null : data.lanes[fault.lane];
      if (lane && !onScreen(lane)) continue;
      const top = lane ? AXIS + lane.top - frame.scrollTop : AXIS, h = lane ? lane.height : view - AXIS;
      ink.fillStyle = colours.fault;
      ink.fillRect(clip(a), top, clip(b) - clip(a), h);
      ink.fillStyle = colours["fault-edge"];
      if (a >= LABEL) ink.fillRect(a, top, 2, h);
      if (fault.bad) outline(clip(a), top + 1, Math.max(clip(b) - clip(a), 3), h - 2);
      const room = Math.max(clip(b) - clip(a), b - a <= 3 ? 90 : 0);
      if (room > ink.measureText(fault.label).width + 8) ink.fillText(fault.label, clip(a) + 5, top + h - 7 - (lane ? 0 : 4));
    }
  };
  const outline = (a, top, w, h) => {
    ink.strokeStyle = colours.bad;
    ink.lineWidth = 2;
    ink.strokeRect(a - 1, top - 1, w + 2, h + 2);
  };
  const fit = (text, room) => {
    if (ink.measureText(text).width <= room) return text;
    let n = Math.floor(text.length * room / ink.measureText(text).width) - 1;
    return n > 2 ? text.slice(0, n) + "…" : "";
  };
  const drawBar = (bar) => {
    const { a, b, y: top, h, seen } = box(bar);
    if (!seen) return;
    const w = Math.max(b - a, 2);
    ink.globalAlpha = hovered && hovered !== bar && hovered.client !== undefined && bar.client !== hovered.client ? 0.45 : 1;
    if (bar.kind === "hold" || bar.kind === "member") {
      ink.fillStyle = hue(bar.client);
      ink.fillRect(a, top, w, h);
      ink.font = (bar.kind === "hold" ? "12px" : "10.5px") + " system-ui, sans-serif";
      ink.textAlign = "left";
      ink.fillStyle = colours["on-hold"];
      if (w > 26) ink.fillText(fit(bar.label, w - 10), a + 5, top + h / 2 + 0.5);
    } else if (bar.kind === "wait" || bar.kind === "open") {
      const colour = bar.kind === "wait" ? hue(bar.client) : colours.open;
      ink.strokeStyle = colour;
      ink.lineWidth = 1.2;
      ink.setLineDash([4, 3]);
      ink.strokeRect(a + 0.5, top + 1.5, Math.max(w - 1, 1), h - 3);
      ink.setLineDash([]);
      ink.font = "10px system-ui, sans-serif";
      ink.textAlign = "left";
      ink.fillStyle = colour;
      if (w > 60 && h >= 9) ink.fillText(fit(bar.label, w - 10), a + 5, top + h / 2 + 0.5);
    } else {
      ink.fillStyle = bar.kind === "session" ? colours.session : colours[bar.kind];
      ink.fillRect(a, top, w, h);
      ink.font = "9.5px system-ui, sans-serif";
      ink.textAlign = "left";
      ink.fillStyle = colours["on-hold"];
      if (bar.kind !== "session" && w > 44) ink.fillText(fit(bar.label, w - 8), a + 4, top + h / 2 + 0.5);
    }
    ink.globalAlpha = 1;
    if (bar.bad) outline(a, top, w, h);
    if (hovered === bar) { ink.strokeStyle = colours.ink; ink.lineWidth = 1.5; ink.strokeRect(a - 1, top - 1, w + 2, h + 2); }
  };
  let crowded = false;
  const drawMark = (mark) => {
    const at = x(mark.at), mid = spot(mark);
    if (at < LABEL || at > width) return;
    ink.beginPath();
    if (mark.kind === "lost" || mark.kind === "gap") {
      const r = 5;
      ink.moveTo(at, mid - r); ink.lineTo(at + r, mid); ink.lineTo(at, mid + r); ink.lineTo(at - r, mid); ink.closePath();
      ink.fillStyle = mark.kind === "lost" ? colours.bad : colours["fault-edge"];
      ink.fill();
    } else {
      ink.arc(at, mid, mark.kind === "word" ? 2.6 : 3.6, 0, 7);
      ink.fillStyle = mark.kind === "yes" ? colours.ok : mark.kind === "no" ? colours.panel : colours.soft;
      ink.fill();
      ink.strokeStyle = mark.kind === "no" ? colours.soft : colours.panel;
      ink.lineWidth = 1.3;
      if (!crowded || mark.kind === "no") ink.stroke();
    }
    if (mark.bad || mark === hovered) {
      ink.beginPath();
      ink.arc(at, mid, 7.5, 0, 7);
      ink.strokeStyle = mark.bad ? colours.bad : colours.ink;
      ink.lineWidth = 2;
      ink.stroke();
    }
  };
  const violation = () => {
    data.violations.forEach((found, place) => {
      if (found.at === null) return;
      const at = x(found.at);
      if (at < LABEL || at > width) return;
      ink.fillStyle = colours.bad;
      ink.globalAlpha = place === current ? 1 : 0.55;
      ink.fillRect(at - (place === current ? 1 : 0.5), AXIS, place === current ? 2 : 1, view);
      ink.beginPath();
      ink.moveTo(at - 5, AXIS - 1); ink.lineTo(at + 5, AXIS - 1); ink.lineTo(at, AXIS + 7); ink.fill();
      ink.globalAlpha = 1;
    });
  };
  const labels = () => {
    ink.fillStyle = colours.panel;
    ink.fillRect(0, AXIS, LABEL, view);
    data.lanes.forEach((lane, place) => {
      if (!onScreen(lane)) return;
      const top = AXIS + lane.top - frame.scrollTop;
      if (place % 2) { ink.fillStyle = colours.stripe; ink.fillRect(0, top, LABEL, lane.height); }
      ink.textAlign = "left";
      ink.font = "11px system-ui, sans-serif";
      ink.fillStyle = colours.soft;
      ink.fillText(lane.kind, 12, top + 15);
      const indent = 12 + ink.measureText(lane.kind).width + 6;
      ink.font = "600 12.5px system-ui, sans-serif";
      ink.fillStyle = lane.kind === "client" ? hue(Number(lane.name)) : colours.ink;
      ink.fillText(fit(lane.name, LABEL - indent - 8), indent, top + 15);
    });
    ink.fillStyle = colours.line;
    ink.fillRect(LABEL - 1, 0, 1, view);
  };

  let asked = false;
  const redraw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
  const resize = () => {
    const full = Math.min(AXIS + total + 2, Math.min(innerHeight * 0.68, 720));
    frame.style.height = Math.max(full, 120) + "px";
    width = frame.clientWidth;
    view = frame.clientHeight;
    canvas.style.height = view + "px";
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(view * devicePixelRatio);
    spacer.style.height = Math.max(0, AXIS + total - view) + "px";
    redraw();
  };
  const show = (a, b) => {
    const least = 20, most = (whole[1] - whole[0]) * 4 + data.end;
    const span = Math.min(Math.max(b - a, least), most), mid = (a + b) / 2;
    [from, to] = [mid - span / 2, mid + span / 2];
    redraw();
  };
  const zoom = (factor, at = (from + to) / 2) => show(at - (at - from) * factor, at + (to - at) * factor);
  const move = (part) => show(from + (to - from) * part, to + (to - from) * part);

  const choose = (place, scroll) => {
    if (!data.violations.length) return;
    current = (place + data.violations.length) % data.violations.length;
    const found = data.violations[current], things = [...data.bars, ...data.marks, ...data.faults].filter((thing) => of(thing, current));
    const times = things.flatMap((thing) => thing.at !== undefined ? [thing.at] : thing.kind === "session" ? [] : [thing.from, Math.min(thing.to, last)]);
    if (found.at !== null) times.push(found.at);
    if (times.length) {
      const a = Math.min(...times), b = Math.max(...times), room = Math.max((b - a) * 0.25, 200);
      show(a - room, b + room);
    }
    const lane = things.map((thing) => data.lanes[thing.lane]).find(Boolean);
    if (lane) frame.scrollTop = lane.top - 40;
    document.querySelectorAll("article.current").forEach((article) => article.classList.remove("current"));
    const article = document.getElementById("v" + current);
    if (article) article.classList.add("current");
    if (scroll) frame.scrollIntoView({ block: "center" });
    redraw();
  };

  const under = (px, py) => {
    if (px < LABEL || py < AXIS) return null;
    for (const mark of data.marks) if (Math.abs(x(mark.at) - px) < 6 && Math.abs(spot(mark) - py) < 8) return mark;
    for (let n = data.bars.length - 1; n >= 0; n--) {
      const { a, b, y: top, h, seen } = box(data.bars[n]);
      if (seen && px >= a - 2 && px <= Math.max(b, a + 2) + 2 && py >= top - 2 && py <= top + h + 2) return data.bars[n];
    }
    for (const fault of data.faults) {
      const lane = fault.lane === null ? null : data.lanes[fault.lane];
      const top = lane ? AXIS + lane.top - frame.scrollTop : AXIS, bottom = lane ? top + lane.height : view;
      if (px >= x(fault.from) - 3 && px <= Math.max(x(fault.to), x(fault.from) + 3) && py >= top && py <= bottom) return fault;
    }
    return null;
  };
  const tell = (thing, event) => {
    if (!thing) { tip.hidden = true; return; }
    const when = thing.at !== undefined ? thing.at.toLocaleString("en") + " µs"
      : thing.from.toLocaleString("en") + " – " + thing.to.toLocaleString("en") + " µs (" + (thing.to - thing.from).toLocaleString("en") + ")";
    tip.replaceChildren();
    const add = (name, text) => { const part = document.createElement(name); part.textContent = text; tip.append(part); };
    add("b", thing.label || thing.kind);
    add("div", thing.detail);
    add("div", when + ", lines " + lines(thing).map((line) => line + 2).join(", "));
    const found = [...new Set(lines(thing).flatMap((line) => marked.get(line) || []))];
    for (const place of found.slice(0, 3)) add("div", "Violation (" + data.violations[place].promise + "): " + data.violations[place].what);
    tip.hidden = false;
    const area = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(event.clientX + 14, innerWidth - area.width - 8)) + "px";
    tip.style.top = (event.clientY + 18 + area.height > innerHeight ? event.clientY - area.height - 12 : event.clientY + 18) + "px";
  };

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, from, to, moved: false };
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.add("moving");
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      const by = (event.clientX - drag.x) / (width - LABEL) * (drag.to - drag.from);
      drag.moved = drag.moved || Math.abs(event.clientX - drag.x) > 3;
      show(drag.from - by, drag.to - by);
      return;
    }
    const area = canvas.getBoundingClientRect(), thing = under(event.clientX - area.left, event.clientY - area.top);
    if (thing !== hovered) { hovered = thing; redraw(); }
    tell(thing, event);
  });
  const drop = () => { drag = null; canvas.classList.remove("moving"); };
  canvas.addEventListener("pointerup", (event) => {
    const area = canvas.getBoundingClientRect(), thing = under(event.clientX - area.left, event.clientY - area.top);
    if (drag && !drag.moved && thing && thing.bad) {
      const place = marked.get(lines(thing).find((line) => marked.has(line)))[0];
      choose(place, false);
      document.getElementById("v" + place)?.scrollIntoView({ block: "nearest", behavior: "smooth" });
    }
    drop();
  });
  canvas.addEventListener("pointercancel", drop);
  canvas.addEventListener("pointerleave", () => { hovered = null; tip.hidden = true; redraw(); });
  canvas.addEventListener("dblclick", (event) => zoom(0.4, time(event.clientX - canvas.getBoundingClientRect().left)));
  canvas.addEventListener("wheel", (event) => {
    const at = time(event.clientX - canvas.getBoundingClientRect().left);
    if (event.ctrlKey || event.metaKey) zoom(Math.exp(event.deltaY * 0.004), at);
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX / (width - LABEL));
    else if (event.shiftKey) move(event.deltaY / (width - LABEL));
    else return;
    event.preventDefault();
  }, { passive: false });
  frame.addEventListener("scroll", redraw);
  const acts = { in: () => zoom(0.6), out: () => zoom(1.7), fit: () => show(...whole), next: () => choose(current + 1, false), previous: () => choose(current < 0 ? -1 : current - 1, false) };
  document.querySelectorAll("[data-do]").forEach((button) => {
    button.addEventListener("click", acts[button.dataset.do]);
    if (!data.violations.length && (button.dataset.do === "next" || button.dataset.do === "previous")) button.disabled = true;
  });
  frame.addEventListener("keydown", (event) => {
    const keys = { "+": acts.in, "=": acts.in, "-": acts.out, 0: acts.fit, n: acts.next, p: acts.previous, ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2) };
    const act = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
    if (act) { act(); event.preventDefault(); }
  });
  document.querySelectorAll("article[data-violation] button").forEach((button) => {
    button.addEventListener("click", () => choose(Number(button.parentElement.parentElement.dataset.violation), true));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redraw(); });
  addEventListener("resize", resize);
  readColours();
  resize();
  if (data.violations.length) choose(0, false);
})();
