/** The panels of one machine's figures: guest time, exits, memory, and one for each disk and nic. They are given its history and draw it. */
import { Chart, type Line } from './chart.js';
import { make } from './elements.js';
import { formatBytes, formatCount } from './format.js';
import { HeatMap } from './heat-map.js';
import type { History } from './history.js';
import type { DeviceRates, Rates } from './rates.js';

/** Something that draws a history in a place of its own. */
export interface Panel {
  readonly element: HTMLElement;
  draw(history: History): void;
  /** The colours have changed. */
  restyle(): void;
  close(): void;
}

const times = (rates: readonly Rates[]): number[] => rates.map(({ atMs }) => atMs);

function panelOf(chart: Chart, draw: (history: History) => void, ...more: readonly HTMLElement[]): Panel {
  return {
    element: make('section', { class: 'panel' }, chart.element, ...more),
    draw,
    restyle: () => chart.restyle(),
    close: () => chart.close(),
  };
}

export function timePanel(): Panel {
  const chart = new Chart('Guest time by the PIT', formatCount);
  const lines: readonly Line[] = [
    { label: 'lag', unit: 'ms' },
    { label: 'interrupts', unit: 'Hz' },
  ];
  return panelOf(chart, (history) => {
    const { rates, latest } = history;
    if (latest === undefined) return;
    const { lagMs, interruptsHz, programmedHz, phase, atMs } = latest;
    const columns = [rates.map((each) => each.lagMs), rates.map((each) => each.interruptsHz)];
    const caughtUp = history.phases().filter((span) => span.phase === 'catch-up');
    const spans = caughtUp.map(({ fromMs, toMs }) => ({ fromMs: fromMs - atMs, toMs: toMs - atMs }));
    const summary = `lag ${lagMs.toFixed(1)} ms; ${interruptsHz.toFixed(0)} of ${programmedHz.toFixed(0)} Hz; ${phase}; shaded: catch-up`;
    chart.draw(times(rates), lines, columns, { summary, spans });
  });
}

export function exitsPanel(): Panel {
  const chart = new Chart('Exits a second, by reason', formatCount);
  return panelOf(chart, (history) => {
    const { rates, latest } = history;
    if (latest === undefined) return;
    const reasons = history.reasons();
    const columns = reasons.map((reason) => rates.map(({ exitsByReason }) => exitsByReason[reason] ?? 0));
    const lines = reasons.map((label) => ({ label, unit: '/s' }));
    chart.draw(times(rates), lines, columns, { summary: `${formatCount(latest.exits)} exits/s altogether` });
  });
}

export function memoryPanel(): Panel {
  const chart = new Chart('Dirty pages a second', formatCount);
  const heat = new HeatMap();
  return panelOf(
    chart,
    ({ rates, latest }) => {
      if (latest === undefined) return;
      const lines = [{ label: 'pages', unit: '/s' }];
      chart.draw(times(rates), lines, [rates.map(({ pages }) => pages)], {
        summary: `${formatCount(latest.pages)} pages of 4 KiB are written in a second`,
      });
      heat.draw(rates);
    },
    heat.element,
  );
}

const DEVICE_LINES: readonly Line[] = [
  { label: 'native bytes', unit: 'B/s' },
  { label: 'emulated bytes', unit: 'B/s' },
  { label: 'native requests', unit: '/s' },
  { label: 'emulated requests', unit: '/s' },
];
const NOTHING = { bytes: 0, requests: 0 };

/** Native: done by the backend. Emulated: done by us in its place. */
export function devicePanel(id: string, deviceClass: string): Panel {
  const chart = new Chart(`${deviceClass === 'block' ? 'Disk' : 'Network'} ${id}`, formatCount);
  const table = make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `Functions of ${id}` });
  const find = ({ devices }: Rates): DeviceRates | undefined => devices.find((device) => device.id === id);
  return panelOf(
    chart,
    ({ rates, latest }) => {
      const now = latest && find(latest);
      if (now === undefined) return;
      const looks = rates.map((each) => find(each) ?? { native: NOTHING, emulated: NOTHING });
      const columns = [
        looks.map(({ native }) => native.bytes),
        looks.map(({ emulated }) => emulated.bytes),
        looks.map(({ native }) => native.requests),
        looks.map(({ emulated }) => emulated.requests),
      ];
      chart.draw(times(rates), DEVICE_LINES, columns, {
        summary:
          `native ${formatBytes(now.native.bytes)}/s, ${formatCount(now.native.requests)} requests/s; ` +
          `emulated ${formatBytes(now.emulated.bytes)}/s, ${formatCount(now.emulated.requests)} requests/s`,
      });
      table.replaceChildren(functionsTable(now));
    },
    table,
  );
}

function functionsTable({ functions }: DeviceRates): HTMLElement {
  const head = ['function', 'by', 'requests/s', 'bytes/s', 'errors'].map((text) => make('th', { scope: 'col' }, text));
  const rows = functions.map(({ name, by, requests, bytes, errors }) =>
    make(
      'tr',
      {},
      make('td', {}, name),
      make('td', { class: `by-${by}` }, by),
      ...[formatCount(requests), formatBytes(bytes), String(errors)].map((text) => make('td', {}, text)),
    ),
  );
  return make('table', {}, make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...rows));
}
