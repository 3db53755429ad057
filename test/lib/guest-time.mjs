// A Debian guest that is stopped for a while: the program that test/guest/guest-time.test.ts runs, on this machine's KVM or
// inside the embedded host. Arguments: the policy, the length of the stop in ms, more words for the kernel's command line.
// The last line of output is JSON: the guest's main loop by both clocks, events, the PIT's status, the end. It judges nothing.
import { setTimeout as delay } from 'node:timers/promises';
import { defaultInitramfs, defaultKernel, Machine } from 'vivarium';

const [policy, stopMs, words = ''] = process.argv.slice(2);
/** How long anything may take on a busy machine whose guests are emulated. */
const PATIENCE_MS = 150_000;
/** Turns of the main loop that are told before the stop, and once the guest has settled after it. */
const TOLD = 5;
/** The guest's clock is back where it was against the host's. */
const AGREES_S = 0.25;
const EVENTS = ['catch-up', 'nominal', 'gave-up', 'stand-down', 'policy-fault'];
/**
 * A turn takes 0.1 s of the guest's time; each tenth is told, with what `date +%s.%6N` would print. No turn forks: in the
 * embedded host a loop of forks alone leaves the guest no time for its ticks. It goes on until something is typed.
 */
const MAIN_LOOP =
  'n=0; until read -t 0.1 _; do n=$((n+1)); [ "${n%0}" = "$n" ] || echo "turn $n $EPOCHREALTIME"; done\n';

const kernel = await defaultKernel();
const initrd = await defaultInitramfs({ kernel });
const cmdline = `console=ttyS0 panic=-1 quiet ${words}`.trim();
// What a boot loses on a busy host is nobody's matter here: the policy holds from the prompt on.
const vm = await Machine.create({ pit: { policy: 'discard' }, boot: { kernel: kernel.path, initrd, cmdline } });

const nowS = () => performance.now() / 1000;
const turns = [];
const events = [];
const lookers = new Set();

/** Resolves when `condition` holds, which is looked at with every turn of the main loop and every event. */
function until(what, condition) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      lookers.delete(look);
      reject(new Error(`waited in vain until ${what}: ${JSON.stringify({ turns, status: vm.pit.status() })}`));
    }, PATIENCE_MS);
    const look = () => {
      if (!condition()) return;
      lookers.delete(look);
      clearTimeout(timer);
      resolve();
    };
    lookers.add(look);
    look();
  });
}

const happened = () => lookers.forEach((look) => look());

for (const name of EVENTS) {
  vm.pit.on(name, (event) => {
    events.push({ name, atS: nowS(), ...event });
    happened();
  });
}

async function readTurns() {
  let text = '';
  for await (const chunk of vm.console.output) {
    const hostS = nowS();
    text += Buffer.from(chunk).toString('latin1');
    const lines = text.split('\n');
    text = lines.pop();
    for (const line of lines) {
      const [, number, guestS] = /^turn (\d+) (\d+\.\d+)\r$/.exec(line) ?? [];
      if (number === undefined) continue;
      turns.push({ number: Number(number), guestS: Number(guestS), hostS, lagMs: vm.pit.status().lagMs });
      happened();
    }
  }
}

try {
  await vm.start();
  await vm.console.waitFor(/vivarium:~# /, { timeoutMs: PATIENCE_MS });
  vm.pit.setPolicy(policy);
  const reading = readTurns();
  vm.console.write(MAIN_LOOP);
  await until('the guest keeps time', () => {
    const { phase, lagMs } = vm.pit.status();
    return turns.length >= TOLD && (phase === 'stand-down' || (phase === 'nominal' && lagMs < 50));
  });
  // A turn is told late at times, never early: the least difference is the nearest to the truth.
  const offsetS = ({ hostS, guestS }) => hostS - guestS;
  const baseS = Math.min(...turns.slice(-TOLD).map(offsetS));
  const before = vm.pit.status();

  const pausedS = nowS();
  await vm.pause();
  await delay(Number(stopMs)); // the disturbance itself
  const turnsBefore = turns.length;
  const resumedS = nowS();
  await vm.resume();

  if (policy === 'catch-up' && before.phase !== 'stand-down') {
    await until('it is caught up', () => {
      const isBack = turns.length > turnsBefore && offsetS(turns.at(-1)) - baseS < AGREES_S;
      return isBack && events.some(({ name, atS }) => name === 'nominal' && atS > resumedS);
    });
  }
  const turnsUntilSettled = turns.length;
  await until('it has gone on', () => turns.length >= turnsUntilSettled + TOLD);
  const after = vm.pit.status();

  vm.console.write('\necho "complaints: $(dmesg | grep -Ec "lockup|stall|BUG:|WARNING:")"; poweroff\n');
  const [, complaints] = await vm.console.waitFor(/^complaints: (\d+)/m, { timeoutMs: PATIENCE_MS });
  const { reason } = await vm.wait();
  await reading;
  const told = turns.map((turn) => ({ ...turn, behindS: offsetS(turn) - baseS, sinceS: turn.hostS - resumedS }));
  const result = {
    stopS: resumedS - pausedS,
    turnsBefore: told.slice(0, turnsBefore),
    turnsUntilSettled: told.slice(turnsBefore, turnsUntilSettled),
    turnsAfter: told.slice(turnsUntilSettled),
    events: events.map(({ atS, ...event }) => ({ ...event, sinceS: atS - resumedS })),
    before,
    after,
    complaints: Number(complaints),
    reason,
  };
  console.log(JSON.stringify(result));
} finally {
  await vm.close();
}
