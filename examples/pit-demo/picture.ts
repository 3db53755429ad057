/**
 * Draws runs of one guest under several policies as one SVG: how far its clock is behind, and the interrupts a second that it
 * takes, over one axis of time. Pure: text out of numbers. The picture brings its own ground, and follows the reader's
 * preference for light or dark.
 */
import { rates, type PolicyRun, type Span } from './summary.js';

export interface PictureOptions {
  readonly title: string;
}

interface Point {
  readonly atMs: number;
  readonly value: number;
}

interface Panel {
  readonly label: string;
  readonly topPx: number;
  readonly lines: readonly { readonly colour: string; readonly points: readonly Point[] }[];
}

interface Scale {
  /** The values that are written beside the axis, in rising order; the first and the last are its ends. */
  readonly ticks: readonly number[];
  readonly toPx: (value: number) => number;
}

const WIDTH = 860;
const HEIGHT = 560;
const LEFT = 76;
const RIGHT = 24;
const PANEL_HEIGHT = 195;
const FIRST_PANEL = 74;
const SECOND_PANEL = 310;
const BOTTOM = SECOND_PANEL + PANEL_HEIGHT;
/** Bright enough on dark ground, dark enough on light. */
const COLOURS = ['#1f9d63', '#d9730d', '#8b66d6', '#2f81d6'];
const MOST_TICKS = 6;

const STYLE = `
  text { fill: #24292f; font: 12px system-ui, sans-serif }
  .title { font-size: 15px; font-weight: 600 }
  .ground { fill: #ffffff }
  .band { fill: #6e7781; opacity: 0.14 }
  .grid { stroke: #d8dee4; stroke-width: 1 }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round }
  @media (prefers-color-scheme: dark) {
    text { fill: #d1d7e0 }
    .ground { fill: #0d1117 }
    .band { fill: #8b949e; opacity: 0.2 }
    .grid { stroke: #30363d }
  }
`;

/** Numbers at round distances that take in both ends: 1, 2 or 5 times a power of ten. */
export function axisTicks(low: number, high: number, most = MOST_TICKS): number[] {
  const range = high > low ? high - low : 1;
  const power = 10 ** Math.floor(Math.log10(range / most));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => range / size <= most) ?? 10 * power;
  const first = Math.floor(low / step);
  const last = Math.max(first + 1, Math.ceil(high / step));
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** @throws RangeError without runs, or with more than there are colours. */
export function drawPicture(runs: readonly PolicyRun[], { title }: PictureOptions): string {
  const first = runs[0];
  if (first === undefined) throw new RangeError('no runs to draw');
  if (runs.length > COLOURS.length) throw new RangeError(`${runs.length} runs, but ${COLOURS.length} colours`);
  const endMs = Math.max(...runs.map(({ samples }) => samples.at(-1)?.atMs ?? 0));
  const time = scale(0, endMs / 1000, LEFT, WIDTH - RIGHT, { isExact: true });
  const toX = (atMs: number) => time.toPx(atMs / 1000);
  const lines = (pointsOf: (run: PolicyRun) => readonly Point[]) =>
    runs.map((run, index) => ({ colour: COLOURS[index]!, points: pointsOf(run) }));
  const panels: Panel[] = [
    {
      label: 'behind, ms',
      topPx: FIRST_PANEL,
      lines: lines(({ samples }) => samples.map(({ atMs, lagMs }) => ({ atMs, value: lagMs }))),
    },
    {
      label: 'interrupts a second',
      topPx: SECOND_PANEL,
      lines: lines(({ samples }) => rates(samples).map(({ atMs, rateHz }) => ({ atMs, value: rateHz }))),
    },
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img" aria-label="${escapeText(title)}">`,
    `<style>${STYLE}</style>`,
    `<rect class="ground" width="${WIDTH}" height="${HEIGHT}" rx="6"/>`,
    text(LEFT, 26, title, 'class="title"'),
    ...legend(runs),
    ...band(first.stop, 'stopped', toX),
    ...band(first.overload, 'overloaded', toX),
    ...panels.flatMap((panel) => drawPanel(panel, time, toX)),
    ...time.ticks.map((second) => text(time.toPx(second), BOTTOM + 18, String(second), 'text-anchor="middle"')),
    text(WIDTH - RIGHT, BOTTOM + 38, 'seconds', 'text-anchor="end"'),
    '</svg>',
    '',
  ].join('\n');
}

function drawPanel({ label, topPx, lines }: Panel, time: Scale, toX: (atMs: number) => number): string[] {
  const values = lines.flatMap(({ points }) => points.map(({ value }) => value));
  const bottomPx = topPx + PANEL_HEIGHT;
  // What is a little below nothing (a lead of a part of a tick) is drawn on the axis.
  const { ticks, toPx } = scale(0, Math.max(1, ...values), bottomPx, topPx, { isExact: false });
  return [
    text(LEFT, topPx - 8, label),
    ...time.ticks.map((second) => gridLine(time.toPx(second), topPx, time.toPx(second), bottomPx)),
    ...ticks.flatMap((value) => [
      gridLine(LEFT, toPx(value), WIDTH - RIGHT, toPx(value)),
      text(LEFT - 8, toPx(value) + 4, value.toLocaleString('en'), 'text-anchor="end"'),
    ]),
    ...lines.map(({ colour, points }) => {
      const path = points.map(({ atMs, value }) => `${px(toX(atMs))},${px(toPx(Math.max(0, value)))}`).join(' ');
      return `<polyline class="line" stroke="${colour}" points="${path}"/>`;
    }),
  ];
}

function legend(runs: readonly PolicyRun[]): string[] {
  return runs.flatMap(({ policy }, index) => {
    const x = WIDTH - RIGHT - 110 * (runs.length - index);
    const y = FIRST_PANEL - 24;
    return [
      `<line x1="${x}" y1="${y}" x2="${x + 22}" y2="${y}" stroke="${COLOURS[index]!}" stroke-width="4"/>`,
      text(x + 28, y + 4, policy),
    ];
  });
}

/** A part of the time, marked in both panels. */
function band({ fromMs, toMs }: Span, label: string, toX: (atMs: number) => number): string[] {
  const x = toX(fromMs);
  const width = px(toX(toMs) - x);
  return [
    ...[FIRST_PANEL, SECOND_PANEL].map(
      (top) => `<rect class="band" x="${px(x)}" y="${top}" width="${width}" height="${PANEL_HEIGHT}"/>`,
    ),
    text((x + toX(toMs)) / 2, FIRST_PANEL + PANEL_HEIGHT + 16, label, 'text-anchor="middle"'),
  ];
}

/** From `low` at `fromPx` to `high` at `toPx`; an axis that is not exact is made longer, to its next round number. */
function scale(low: number, high: number, fromPx: number, toPx: number, { isExact }: { isExact: boolean }): Scale {
  const all = axisTicks(low, high);
  const ticks = isExact ? all.filter((value) => value <= high) : all;
  const end = isExact ? high : ticks.at(-1)!;
  return { ticks, toPx: (value) => fromPx + ((value - low) / (end - low)) * (toPx - fromPx) };
}

function gridLine(x1: number, y1: number, x2: number, y2: number): string {
  return `<line class="grid" x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}"/>`;
}

function text(x: number, y: number, content: string, attributes = ''): string {
  const more = attributes === '' ? '' : ` ${attributes}`;
  return `<text x="${px(x)}" y="${px(y)}"${more}>${escapeText(content)}</text>`;
}

function px(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escapeText(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
