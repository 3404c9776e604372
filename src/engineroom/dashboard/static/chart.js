// A chart of one series on a canvas, as bars or a line. A text beside it says the same for those who do not see it.

import { colour } from "./dom.js";

/** Prepare a canvas for sharp lines; returns its context and its size in CSS pixels. */
export function prepared(canvas, height) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth || 600;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.font = "11px system-ui, sans-serif";
  return { context, width, height };
}

/** The next round number: 1, 2 or 5 times a power of ten. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value * 0.999) * power;
}

/**
 * Draw [x, y] points. x in seconds since the epoch.
 * options: {height, from, to, at: a moment to mark, bars: seconds per bar, label: value => text, clock: seconds => text}
 */
export function chart(canvas, points, options) {
  const { context: c, width, height } = prepared(canvas, options.height || 150);
  const left = 46, bottom = 18, top = 8, right = 8;
  const from = options.from ?? points[0]?.[0] ?? 0, to = Math.max(options.to ?? points.at(-1)?.[0] ?? 1, from + 1e-6);
  const most = roundUp(Math.max(0, ...points.map((p) => p[1])));
  const x = (t) => left + ((t - from) / (to - from)) * (width - left - right);
  const y = (v) => top + (1 - v / most) * (height - top - bottom);
  c.strokeStyle = colour("--line");
  c.fillStyle = colour("--soft");
  c.lineWidth = 1;
  for (const part of [0, 0.5, 1]) {
    const at = Math.round(y(most * part)) + 0.5;
    c.beginPath(); c.moveTo(left, at); c.lineTo(width - right, at); c.stroke();
    c.textAlign = "right";
    c.fillText(options.label(most * part), left - 6, at + 4);
  }
  c.textAlign = "left"; c.fillText(options.clock(from), left, height - 4);
  c.textAlign = "right"; c.fillText(options.clock(to), width - right, height - 4);
  c.fillStyle = c.strokeStyle = colour("--accent");
  if (options.bars) {
    const wide = Math.max(1, x(from + options.bars) - x(from) - 1);
    for (const [t, v] of points) c.fillRect(x(t) - wide / 2, y(v), wide, y(0) - y(v));
    if (options.at) { c.fillStyle = colour("--text"); c.fillRect(Math.round(x(options.at)) - 1, top, 2, y(0) - top); }
    return;
  }
  c.lineWidth = 1.75;
  c.beginPath();
  points.forEach(([t, v], i) => (i ? c.lineTo(x(t), y(v)) : c.moveTo(x(t), y(v))));
  c.stroke();
  if (points.length > 1) {
    c.lineTo(x(points.at(-1)[0]), y(0)); c.lineTo(x(points[0][0]), y(0)); c.closePath();
    c.globalAlpha = 0.12; c.fill(); c.globalAlpha = 1;
  }
}
