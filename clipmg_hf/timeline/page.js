// Joins the video, the timeline and the table of events. All data are attributes of the elements on the page.
"use strict";
(() => {
  const find = (selector) => document.querySelector(selector);
  const video = find("video");
  const view = find(".view");
  const track = find(".track");
  const playhead = find(".playhead");
  const duration = Number(track.dataset.duration);
  const blocks = [...document.querySelectorAll(".event")];
  const body = find(".events tbody");
  const rows = body ? [...body.rows] : [];
  // Element of the timeline and row of the table by the number of the event.
  const events = rows.map((row) => ({ row, block: null, ...row.dataset }));
  events.forEach((event) => {
    for (const name of ["start", "end", "score"]) event[name] = Number(event[name]);
  });
  for (const block of blocks) events[block.dataset.event].block = block;
  let position = 0;
  let chosen = null;
  let stopAt = Infinity;
  let zoom = 1;
  let current = [];

  function clock(seconds) {
    const tenths = Math.floor(seconds * 10 + 1e-6);
    const two = (value) => String(value).padStart(2, "0");
    const whole = Math.floor(tenths / 10);
    return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}.${tenths % 10}`;
  }

  function describe(event) {
    const parts = [event.label, `${clock(event.start)} to ${clock(event.end)}`, `score ${event.score.toFixed(2)}`];
    if (event.group) parts[2] += `, ${event.group}`;
    if (event.person !== undefined) parts[2] += `, person ${event.person}`;
    return parts;
  }

  // --- time

  function show(seconds) {
    position = seconds;
    playhead.style.left = `${(100 * Math.min(seconds, duration)) / duration}%`;
    const now = events.filter((event) => event.start <= seconds && seconds < event.end && !event.row.hidden);
    for (const event of current) if (!now.includes(event)) event.row.classList.remove("current");
    for (const event of now) if (!current.includes(event)) event.row.classList.add("current");
    current = now;
    const line = find(".now");
    line.replaceChildren(clock(seconds));
    for (const event of now) {
      const label = document.createElement("b");
      label.textContent = event.label;
      const person = event.person === undefined ? "" : `, person ${event.person}`;
      line.append(document.createElement("br"), label, ` ${event.score.toFixed(2)}${person}`);
    }
  }

  function keepInView() {
    if (zoom === 1) return;
    const x = (track.clientWidth * position) / duration;
    if (x < view.scrollLeft || x > view.scrollLeft + view.clientWidth) view.scrollLeft = x - view.clientWidth / 4;
  }

  function seek(seconds) {
    stopAt = Infinity;
    if (video) video.currentTime = seconds;
    show(seconds);
    keepInView();
  }

  function choose(event) {
    const isAgain = chosen === event;
    if (isAgain && video && !video.paused) {
      video.pause();
      return;
    }
    if (chosen) for (const element of [chosen.row, chosen.block]) element.classList.remove("chosen");
    chosen = event;
    for (const element of [event.row, event.block]) element.classList.add("chosen");
    const box = find(".events");
    const top = event.row.offsetTop - 40;
    if (top < box.scrollTop || top > box.scrollTop + box.clientHeight - 80) box.scrollTop = top - 60;
    // Half a millisecond later, so that rounding does not show the frame before.
    seek(event.start + 0.0005);
    if (video) {
      if (find("#stop").checked) stopAt = event.end;
      video.play().catch(() => {});
    }
  }

  function follow() {
    if (!video.paused && video.currentTime >= stopAt) {
      video.pause();
      stopAt = Infinity;
    }
    show(video.currentTime);
    keepInView();
    if (!video.paused) requestAnimationFrame(follow);
  }

  if (video) {
    video.addEventListener("play", () => requestAnimationFrame(follow));
    video.addEventListener("timeupdate", () => show(video.currentTime));
    video.addEventListener("error", () => { find("#broken").hidden = false; });
    if (video.error) find("#broken").hidden = false;
  }

  // --- timeline

  function drawTicks() {
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
    const least = (90 * duration) / Math.max(track.clientWidth, 1);
    const step = steps.find((value) => value >= least) || 7200;
    const ticks = find(".track .ticks");
    ticks.replaceChildren();
    // Only what can be seen and a screen to both sides.
    const perPixel = duration / Math.max(track.clientWidth, 1);
    const first = Math.max(0, Math.floor(((view.scrollLeft - view.clientWidth) * perPixel) / step));
    const last = Math.min(duration / step, ((view.scrollLeft + 2 * view.clientWidth) * perPixel) / step);
    for (let index = first; index <= last; index += 1) {
      const tick = document.createElement("span");
      tick.style.left = `${(100 * index * step) / duration}%`;
      const text = step < 1 ? clock(index * step).slice(3) : clock(index * step).slice(duration < 3600 ? 3 : 0, -2);
      // The last one may have no room before the end.
      if ((duration - index * step) / perPixel > 8 * text.length) tick.textContent = text;
      ticks.append(tick);
    }
  }

  function setZoom(value) {
    // A second is at most 200 pixels wide.
    zoom = Math.min(Math.max(value, 1), Math.max(1, (200 * duration) / view.clientWidth));
    track.style.width = `${100 * zoom}%`;
    view.scrollLeft = (track.clientWidth * position) / duration - view.clientWidth / 2;
    drawTicks();
  }

  find("#closer").addEventListener("click", () => setZoom(zoom * 2));
  find("#farther").addEventListener("click", () => setZoom(zoom / 2));
  find("#whole").addEventListener("click", () => setZoom(1));
  view.addEventListener("scroll", drawTicks);
  window.addEventListener("resize", drawTicks);

  track.addEventListener("click", (click) => {
    const block = click.target.closest(".event");
    if (block) {
      choose(events[block.dataset.event]);
    } else {
      const box = track.getBoundingClientRect();
      seek((duration * (click.clientX - box.left)) / box.width);
    }
  });

  // One event is in the tab order; arrow keys move to the others.
  function focusBlock(block) {
    for (const other of track.querySelectorAll('.event[tabindex="0"]')) other.tabIndex = -1;
    block.tabIndex = 0;
    block.focus();
  }

  track.addEventListener("keydown", (press) => {
    const block = press.target.closest(".event");
    if (!block) return;
    const lanes = [...track.querySelectorAll(".lane")];
    const shown = (lane) => [...lane.children].filter((other) => !other.hidden);
    const lane = lanes.indexOf(block.parentElement);
    const mates = shown(lanes[lane]);
    const place = mates.indexOf(block);
    let target = null;
    if (press.key === "ArrowRight") target = mates[place + 1];
    if (press.key === "ArrowLeft") target = mates[place - 1];
    if (press.key === "Home") target = mates[0];
    if (press.key === "End") target = mates[mates.length - 1];
    if (press.key === "ArrowDown" || press.key === "ArrowUp") {
      const step = press.key === "ArrowDown" ? 1 : -1;
      const start = events[block.dataset.event].start;
      const distance = (other) => Math.abs(events[other.dataset.event].start - start);
      for (let next = lane + step; next >= 0 && next < lanes.length && !target; next += step) {
        target = shown(lanes[next]).reduce((a, b) => (a && distance(a) <= distance(b) ? a : b), null);
      }
    }
    if (target) focusBlock(target);
    if (target || press.key.startsWith("Arrow")) press.preventDefault();
  });
  if (blocks.length) blocks[0].tabIndex = 0;

  // --- tooltips

  const tooltip = find(".tooltip");
  function showTooltip(block) {
    tooltip.textContent = describe(events[block.dataset.event]).join("\n");
    tooltip.hidden = false;
    const box = block.getBoundingClientRect();
    const left = Math.max(box.left, view.getBoundingClientRect().left);
    tooltip.style.left = `${Math.max(4, Math.min(left, window.innerWidth - tooltip.offsetWidth - 8))}px`;
    const above = box.top - tooltip.offsetHeight - 6;
    tooltip.style.top = `${above < 4 ? box.bottom + 6 : above}px`;
  }
  for (const [on, off] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    track.addEventListener(on, (move) => {
      const block = move.target.closest(".event");
      if (block) showTooltip(block);
    });
    track.addEventListener(off, () => { tooltip.hidden = true; });
  }
  document.addEventListener("keydown", (press) => {
    if (press.key === "Escape") tooltip.hidden = true;
  });

  // --- table

  if (body) {
    body.addEventListener("click", (click) => {
      const row = click.target.closest("tr");
      if (row) choose(events[row.dataset.event]);
    });
    for (const [column, header] of [...document.querySelectorAll(".events thead th")].entries()) {
      header.firstElementChild.addEventListener("click", () => {
        const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const isNumber = rows.every((row) => row.cells[column].dataset.value !== undefined);
        const compare = isNumber ? (a, b) => value(a) - value(b) : (a, b) => value(a).localeCompare(value(b));
        body.append(...[...rows].sort((a, b) => sign * compare(a, b)));
      });
    }
  }

  function filter() {
    const text = find("#text").value.trim().toLowerCase();
    const group = find("#group").value;
    const least = Number(find("#least").value);
    find("#least_value").textContent = least.toFixed(2);
    let count = 0;
    for (const event of events) {
      const isShown =
        event.score >= least &&
        (group === "*" || event.group === group) &&
        (!text || event.label.toLowerCase().includes(text));
      event.row.hidden = event.block.hidden = !isShown;
      count += isShown;
    }
    find("#count").textContent = `${count} of ${events.length}`;
    show(position);
  }
  for (const id of ["#text", "#group", "#least"]) if (find(id)) find(id).addEventListener("input", filter);

  drawTicks();
  show(0);
})();
