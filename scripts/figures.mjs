/**
 * Writes the table of SPECIFICATION.md from bench/results/: every promised figure with what was measured last.
 * `node scripts/figures.mjs` prints it, `--write` puts it into the document. A unit test holds the two together.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';

const ROOT = path.resolve(import.meta.dirname, '..');
const DOCUMENT = path.join(ROOT, 'SPECIFICATION.md');
const START = '<!-- figures: written by scripts/figures.mjs -->';
const END = '<!-- end of figures -->';

/** What is promised: at most `most`, in the unit given; last the stage, where a program has two. */
export const PROMISES = [
  ['exits', 'nativeRatio', 1.15, '', 'cost of a port exit answered by the vCPU thread, against a plain C loop'],
  ['exits', 'scriptRatio', 2, '', 'cost of a port exit handled by a TypeScript device, against a plain C loop'],
  ['exits', 'idleCpuPercent', 1, ' %', 'CPU use of a process whose guest sleeps'],
  ['create', '128MiBReadyRatio', 1.3, '', 'create to the first port write, 128 MiB, against bare ioctls'],
  ['create', '4GiBReadyRatio', 1.3, '', 'create to the first port write, 4 GiB, against bare ioctls'],
  ['create', '128MiBWholeRatio', 1.3, '', 'create to close done, 128 MiB, against bare ioctls'],
  ['create', '4GiBWholeRatio', 1.3, '', 'create to close done, 4 GiB, against bare ioctls'],
  ['create', 'fourAtOnceRatio', 0.75, '', 'four machines at once, against the same four in turn'],
  ['memory', 'furtherMachineMiB', 5, ' MiB', 'resident memory of a further machine, beyond its guest memory'],
  ['pit', 'returnMs', 2000, ' ms', 'a guest stopped for 2 s: until its time is within a tick'],
  ['pit', 'stopLostTicks', 0, '', 'ticks lost by that stop'],
  ['pit', 'greatestRateOfCapRatio', 1, '', 'greatest rate in 100 ms after it, against the cap'],
  ['pit', 'workGivenUpPercent', 30, ' %', "share of the guest's own work given up while it is paid back"],
  ['pit', 'loadLostTicks', 0, '', 'ticks lost by a guest once a load on all CPUs has ended'],
  [
    'pit',
    'oneMachineCpuPercent',
    0.1,
    ' %',
    'CPU use of the JavaScript and event threads with a machine that is owed nothing',
  ],
  ['pit', 'eachOfTwentyCpuPercent', 0.1, ' %', 'the same for each of twenty machines in one process'],
  ['pit', 'catchUpCpuPercent', 1, ' %', 'the same with one machine that is caught up'],
  [
    'block',
    'readCpuUs',
    3.33,
    ' us',
    'CPU time of a 4 KiB read from page cache, mock driver included: 300,000 a second',
  ],
  ['block', 'readRebindMs', 5, ' ms', 'rebind with reads in flight: how long it stops the device beyond the drain'],
  ['block', 'writeRebindMs', 5, ' ms', 'the same with writes in flight'],
  [
    'net',
    'sendSmallCpuUs',
    2,
    ' us',
    'CPU time of a 60-byte frame out of a guest, mock driver included: 500,000 a second',
  ],
  ['net', 'receiveSmallCpuUs', 2, ' us', 'the same into a guest'],
  ['net', 'sendFullCpuUs', 2, ' us', 'the same of a 1514-byte frame out of a guest'],
  ['net', 'receiveFullCpuUs', 2, ' us', 'the same into a guest'],
  ...[
    ['streamOut', 'iperf3 out of a guest', 'time a bit', 'CPU time a bit'],
    ['streamIn', 'iperf3 into a guest', 'time a bit', 'CPU time a bit'],
    ['packetsOut', '64-byte frames out of a guest', 'time a frame', 'CPU time a frame'],
    ['packetsIn', '64-byte frames into a guest', 'time a frame', 'CPU time a frame'],
    ['ping', 'ping of the host', 'round trip', 'CPU time a round trip'],
  ].flatMap(([job, text, time, cpu]) => [
    ['net', `${job}TimeRatio`, 1, '', `${text}: ${time}, against QEMU's virtio-net on a tap without vhost`, 'embedded'],
    ['net', `${job}CpuRatio`, 1, '', `${text}: ${cpu}, the same`, 'embedded'],
  ]),
  ...[
    ['randread4kDepth1', 'fio, 4 KiB random read, depth 1'],
    ['randread4kDepth32', 'fio, 4 KiB random read, depth 32'],
    ['randwrite4kDepth1', 'fio, 4 KiB random write, depth 1'],
    ['randwrite4kDepth32', 'fio, 4 KiB random write, depth 32'],
    ['read1MDepth4', 'fio, 1 MiB sequential read'],
    ['write1MDepth4', 'fio, 1 MiB sequential write'],
  ].flatMap(([job, text]) => [
    [
      'fio',
      `${job}TimeRatioToBetter`,
      1,
      '',
      `${text}: time a request, against the better of QEMU's aio=threads and io_uring`,
    ],
    ['fio', `${job}CpuRatioToBetter`, 1, '', `${text}: CPU time a request, the same`],
  ]),
  ['boot', 'quietRatioToFaster', 1, '', 'command start to userspace, quiet, against the faster of QEMU microvm and pc'],
  ['boot', 'fullRatioToFaster', 1, '', 'the same with the full log of the kernel'],
  ['snapshot', 'instantAt1024MiBStopMs', 10, ' ms', 'snapshot `instant` of 1 GiB: the stop'],
  ['snapshot', 'instantGrowthOfMemoryRatio', 0.1, '', 'how that stop grows from 128 MiB to 4 GiB, against memory'],
  ['snapshot', 'liveStopMs', 20, ' ms', 'snapshot `live` of 1 GiB with 100 MiB/s dirtied: the stop'],
  ['snapshot', 'zstdSaveTimeRatio', 1.25, '', 'time of a save of incompressible memory, against raw writes and a sync'],
  ['snapshot', 'noneSaveTimeRatio', 1.25, '', 'the same with `compress: none`'],
  ['snapshot', 'pacedGuestSlowdownRatio', 2, '', "guest's time for its work during `instant`, dirtying 100 MiB/s"],
  ['snapshot', 'pacedGuestWorstWriteMs', 5, ' ms', 'the longest that one of its writes is held'],
  ['snapshot', 'fastGuestSlowdownRatio', 2, '', "guest's time for its work during `instant`, writing at full speed"],
  ['snapshot', 'fastGuestWorstWriteMs', 5, ' ms', 'the longest that one of its writes is held'],
  ...['Paused', 'Live', 'Instant'].map((mode) => [
    'snapshot',
    `linux${mode}SaveTimeRatio`,
    0.5,
    '',
    `time of a save of a fresh Linux guest, \`${mode.toLowerCase()}\`, against QEMU's of the same kind`,
    'embedded',
  ]),
  ...[
    ['128MiB', '128 MiB'],
    ['1024MiB', '1 GiB'],
    ['4096MiB', '4 GiB'],
  ].map(([size, text]) => [
    'restore',
    `lazyBeyondCreateAt${size}Ms`,
    10,
    ' ms',
    `lazy restore of ${text} to the first port write, beyond create to the same`,
  ]),
  ['restore', 'lazyGrowthRatio', 1.2, '', 'the time of that at 4 GiB, against 128 MiB'],
  ['restore', 'eagerTimeRatio', 1.25, '', 'time of an eager restore, against raw reads of the same file'],
  ['restore', 'workHotRatio', 1.1, '', "a guest's repeated work after a restore with a hot set, against never stopped"],
  [
    'restore',
    'workHotTrackedRatio',
    1.1,
    '',
    'the same, where the restored machine notes what it writes (the default)',
  ],
  ['control', 'machineMs', 5, ' ms', 'who an idle machine of another process is, by its control socket'],
  ['control', 'statsMs', 5, ' ms', 'its counters'],
  ['control', 'scrapeOf20Ms', 20, ' ms', "the counters of twenty machines, as Prometheus's text"],
  [
    'control',
    'watch20CpuPercent',
    10,
    ' %',
    'CPU use of a process that watches twenty machines at 10 updates a second',
  ],
  [
    'dashboard',
    'watchedCpuPercent',
    10,
    ' %',
    'CPU use of the dashboard while a page looks at twenty machines ten times a second',
  ],
];

/** The table as text, from the results that there are. */
export function figuresTable() {
  const rows = PROMISES.map(([program, metric, most, unit, text, ownStage]) => {
    const file = path.join(ROOT, 'bench/results', `${program}.json`);
    const result = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
    const value = result?.metrics[metric];
    const measuredOn = ownStage ?? result?.stage.split('+')[0] ?? '';
    const where = result?.host.kvm === 'embedded' && measuredOn === 'flat' ? ', in the embedded host' : '';
    const stage = `${measuredOn}${where}`;
    const median = typeof value === 'number' ? value : value?.median;
    const range = typeof value === 'object' ? ` (${value.low} to ${value.high})` : '';
    const measured = median === undefined ? 'not measured yet' : `${median}${unit}${range}`;
    const reached = median === undefined ? '' : median <= most ? 'yes' : 'no';
    return `| ${text} | ${most}${unit} | ${measured} | ${reached} | ${stage} | \`${program}\`, ${metric} |`;
  });
  return [
    '| figure | at most | measured | reached | stage | program, metric |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}

/** The document with the table as it is to be. */
export function withFigures(text) {
  const before = text.slice(0, text.indexOf(START) + START.length);
  return `${before}\n${figuresTable()}\n${text.slice(text.indexOf(END))}`;
}

if (process.argv[1] === import.meta.filename) {
  if (process.argv.includes('--write')) writeFileSync(DOCUMENT, withFigures(readFileSync(DOCUMENT, 'utf8')));
  else console.log(figuresTable());
}
