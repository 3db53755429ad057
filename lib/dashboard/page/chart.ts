/** Lines over the last minute, drawn by uPlot: in the page's colours, as wide as their place, with spans of time shaded. */
import uPlot from './vendor/uplot.js';
import { make, setText } from './elements.js';
import { WINDOW_MS } from './history.js';

export interface Line {
  readonly label: string;
  /** What its numbers are: lines of one unit share an axis. */
  readonly unit: string;
}

export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

const HEIGHT_PX = 190;
const COLOURS = 8;
/** Sides of a chart, as uPlot numbers them. */
const LEFT: number = 3;
const RIGHT: number = 1;

/** Of the page's styles: they change with light and dark. */
function style(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export class Chart {
  readonly element: HTMLElement;
  readonly #place = make('div', { class: 'chart' });
  readonly #summary = make('figcaption');
  readonly #format: (value: number) => string;
  readonly #resizes: ResizeObserver;
  #plot: uPlot | undefined;
  #lines: readonly Line[] = [];
  #spans: readonly Span[] = [];
  #data: uPlot.AlignedData = [[]];

  constructor(title: string, format: (value: number) => string) {
    this.#format = format;
    this.#place.setAttribute('role', 'img');
    this.#place.setAttribute('aria-label', title);
    this.element = make('figure', {}, make('h3', {}, title), this.#summary, this.#place);
    this.#resizes = new ResizeObserver(() => this.#fit());
    this.#resizes.observe(this.#place);
  }

  /** `columns`: the values of each line at these times. */
  draw(
    atMs: readonly number[],
    lines: readonly Line[],
    columns: readonly (readonly number[])[],
    { summary, spans = [] }: { readonly summary: string; readonly spans?: readonly Span[] },
  ): void {
    setText(this.#summary, summary);
    this.#spans = spans;
    const now = atMs.at(-1) ?? 0;
    this.#data = [atMs.map((at) => (at - now) / 1000), ...columns.map((column) => [...column])];
    const same =
      lines.length === this.#lines.length && lines.every(({ label }, at) => label === this.#lines[at]?.label);
    this.#lines = lines;
    if (!same || this.#plot === undefined) this.restyle();
    else this.#plot.setData(this.#data);
  }

  /** Anew, in the colours of now. */
  restyle(): void {
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#options(), this.#data, this.#place);
  }

  close(): void {
    this.#resizes.disconnect();
    this.#plot?.destroy();
  }

  #fit(): void {
    const width = this.#place.clientWidth;
    if (width > 0 && this.#plot !== undefined && this.#plot.width !== width) {
      this.#plot.setSize({ width, height: HEIGHT_PX });
    }
  }

  #options(): uPlot.Options {
    const [ink, grid] = [style('--faint'), style('--line')];
    const units = [...new Set(this.#lines.map(({ unit }) => unit))];
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    return {
      width: Math.max(1, this.#place.clientWidth),
      height: HEIGHT_PX,
      cursor: { show: false },
      legend: { live: false },
      scales: {
        x: { time: false, range: () => [-WINDOW_MS / 1000, 0] },
        ...Object.fromEntries(
          units.map((unit) => [
            unit,
            { range: (_plot, low, high) => [Math.min(0, low * 1.1), high > 0 ? high * 1.1 : 1] },
          ]),
        ),
      },
      series: [
        {},
        ...this.#lines.map(({ label, unit }, at) => ({
          label,
          scale: unit,
          stroke: style(`--series-${(at % COLOURS) + 1}`),
          width: 1.5,
          // Of the axis on the right: lines that lie on each other are still told apart.
          ...(unit === units[0] ? {} : { dash: [6, 4] }),
          points: { show: false },
        })),
      ],
      axes: [
        { ...axis, values: (_plot, values) => values.map((value) => `${value} s`) },
        // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- an enum of types alone, without values
        ...units.map((unit, at) => ({
          ...axis,
          scale: unit,
          side: at === 0 ? LEFT : RIGHT,
          size: 74,
          grid: { ...axis.grid, show: at === 0 },
          values: (_plot: uPlot, values: number[]) => values.map((value) => `${this.#format(value)}${unit}`),
        })),
      ],
      hooks: { drawClear: [(plot) => this.#shade(plot)] },
    };
  }

  #shade(plot: uPlot): void {
    if (this.#spans.length === 0) return;
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.fillStyle = style('--shade');
    for (const { fromMs, toMs } of this.#spans) {
      const from = Math.max(bbox.left, plot.valToPos(fromMs / 1000, 'x', true));
      const to = plot.valToPos(toMs / 1000, 'x', true);
      ctx.fillRect(from, bbox.top, Math.max(2, to - from), bbox.height);
    }
    ctx.restore();
  }
}
