/** Where in its memory a guest writes, over the last minute: time goes to the right, addresses go up, and what is written more is warmer. */
import { make, setText } from './elements.js';
import { formatBytes, formatCount } from './format.js';
import { WINDOW_MS } from './history.js';
import type { Rates } from './rates.js';

/** As many as are still seen on a narrow screen. */
const COLUMNS = 150;
const MAX_ROWS = 64;
const PAGE_BYTES = 4096;

export class HeatMap {
  readonly element: HTMLElement;
  readonly #canvas = make('canvas', { class: 'heat', role: 'img' });
  readonly #caption = make('figcaption');

  constructor() {
    this.element = make('figure', {}, make('h3', {}, 'Writes by place in memory'), this.#caption, this.#canvas);
  }

  draw(rates: readonly Rates[]): void {
    const latest = rates.at(-1);
    const perRow = Math.ceil((latest?.buckets.length ?? 0) / MAX_ROWS);
    const count = perRow === 0 ? 0 : Math.ceil((latest?.buckets.length ?? 0) / perRow);
    const context = this.#canvas.getContext('2d');
    if (latest === undefined || count === 0 || context === null) return;
    // Setting a size clears it, so it is set when it changes.
    if (this.#canvas.width !== COLUMNS || this.#canvas.height !== count) {
      this.#canvas.width = COLUMNS;
      this.#canvas.height = count;
    }
    const image = context.createImageData(COLUMNS, count);
    const columns = warmest(rates, latest.atMs, { count, perRow });
    // Counts of pages span orders of magnitude: by their logarithm, up to a bucket that is written from end to end at each beat.
    const most = Math.max(1, ...columns.flat());
    for (const [x, column] of columns.entries()) {
      for (const [row, pages] of column.entries()) {
        const heat = pages > 0 ? 0.15 + (0.85 * Math.log1p(pages)) / Math.log1p(most) : 0;
        paint(image.data, 4 * ((count - 1 - row) * COLUMNS + x), heat);
      }
    }
    context.putImageData(image, 0, 0);
    this.#tell(latest, most);
  }

  #tell({ buckets, bucketBytes }: Rates, most: number): void {
    const active = buckets.filter((pages) => pages > 0).length;
    const count = buckets.length;
    const total = formatBytes(count * bucketBytes);
    setText(
      this.#caption,
      `0 (below) to ${total} (above), in ${count} parts of ${formatBytes(bucketBytes)}; written now: ${active}; warmest: ` +
        `${formatCount(most)} pages/s (${formatBytes(most * PAGE_BYTES)}/s)`,
    );
    this.#canvas.setAttribute(
      'aria-label',
      `Heat map of writes to memory: ${active} of ${count} parts are written now`,
    );
  }
}

/** For each column of time the largest rates of each row in it. */
function warmest(
  rates: readonly Rates[],
  nowMs: number,
  { count, perRow }: { readonly count: number; readonly perRow: number },
): number[][] {
  const columns = Array.from({ length: COLUMNS }, () => new Array<number>(count).fill(0));
  for (const { atMs, buckets } of rates) {
    const x = Math.min(COLUMNS - 1, Math.floor((1 - (nowMs - atMs) / WINDOW_MS) * COLUMNS));
    const column = columns[x];
    if (column === undefined) continue;
    for (let row = 0; row < count; row++) {
      const pages = buckets.slice(row * perRow, (row + 1) * perRow).reduce((sum, each) => sum + each, 0);
      column[row] = Math.max(column[row] ?? 0, pages);
    }
  }
  return columns;
}

/** From dark blue over red to yellow, on any ground. */
function paint(data: Uint8ClampedArray, at: number, heat: number): void {
  if (heat === 0) return;
  data[at] = Math.min(255, 30 + 420 * heat);
  data[at + 1] = Math.max(0, 400 * (heat - 0.5));
  data[at + 2] = Math.max(30, 170 - 260 * Math.abs(heat - 0.25));
  data[at + 3] = 255;
}
