/** A stock guest with a shell, saved while it runs, and two clones of the snapshot, with other clocks. Prints what it saw as JSON. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Machine } from 'vivarium';
import { compareClocks, ended, note, until } from './agent-guest.mjs';
import { GuestShell } from './guest-shell.mjs';

const { kernel, initrd } = JSON.parse(process.argv[2]);
const folder = mkdtempSync(join(tmpdir(), 'vivarium-snapshots-'));

async function clones() {
  const vm = await Machine.create({
    memory: '128MiB',
    boot: { kernel, initrd, cmdline: 'console=ttyS0 panic=-1 quiet' },
  });
  const report = { clones: [] };
  let dir;
  try {
    await vm.start();
    const shell = await GuestShell.ready(vm);
    await shell.run('(n=0; while :; do n=$((n+1)); echo $n > /tmp/count; usleep 20000; done) > /dev/null 2>&1 &');
    ({ dir } = await vm.snapshot(join(folder, 'one'), { mode: 'live', maxPauseMs: 60_000 }));
    report.state = vm.state;
    report.original = await look(shell);
    report.release = await shell.run('uname -r');
  } finally {
    await vm.close();
  }
  for (const [memory, clock] of [
    ['lazy', 'step'],
    ['eager', 'freeze'],
  ]) {
    const clone = await Machine.restore(dir, { memory, clock });
    try {
      note(`restored with ${memory} memory`);
      const shell = new GuestShell(clone);
      const seen = await look(shell);
      seen.reason = await ended(clone, () => clone.console.write('poweroff\n'));
      report.clones.push(seen);
    } finally {
      await clone.close();
    }
  }
  return report;
}

/** Random numbers first of all: they are to differ from the start. */
async function look(shell) {
  const random = (await shell.run('head -c 32 /dev/urandom | sha256sum')).split(' ')[0];
  const count = Number(await shell.run('cat /tmp/count'));
  await shell.run(until(`[ "$(cat /tmp/count)" -gt ${count} ]`));
  const clock = await compareClocks(() => shell.run('date +%s'));
  const source = await shell.run('cat /sys/devices/system/clocksource/clocksource0/current_clocksource');
  const log = await shell.run('dmesg | grep -iE "crng|lockup|stall|unstable|clocksource: timekeeping" || :');
  return { random, clock, source, log: log.split('\n').map((line) => line.replace(/^\[[^\]]*\] /, '')) };
}

try {
  console.log(JSON.stringify(await clones()));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
