/**
 * The program that the embedded host runs: joins its sessions to processes, each in one of its own, so that a crash
 * hurts only that session. Talks to the broker through a virtio-serial port and powers the host off when it goes.
 * It is packed into the host's image: it must import nothing but its neighbours here and base/.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { Bundles } from './inner-bundles.js';
import { InnerSession } from './inner-session.js';
import { FRAME_MESSAGE, type Frame } from './frames.js';
import { Link } from './link.js';
import { failureOf, messageOf, type Message } from './messages.js';
import { OUTER_ROOT, type SharedFolder } from './paths.js';
import { openPort } from './port.js';

const sessions = new Map<number, InnerSession>();
const bundles = new Bundles('/run/vivarium/bundles', log);
let attached = false;

function log(text: string): void {
  writeFileSync('/dev/console', `${text.trimEnd()}\n`);
}

const port = openPort('vivarium');
const link = new Link(port.input, port.output, { onFrame, onEnd: powerOff });
link.sendMessage(0, { type: 'hello', uptimeMs: Math.round(process.uptime() * 1000) });

function onFrame(frame: Frame): void {
  if (frame.session === 0) return onLinkMessage(messageOf(frame));
  const session = sessions.get(frame.session);
  if (session !== undefined) return session.onFrame(frame);
  if (frame.type !== FRAME_MESSAGE) return; // a session that has just ended
  const message = messageOf(frame);
  if (message.type === 'open') open(frame.session, message);
}

function onLinkMessage(message: Message): void {
  switch (message.type) {
    case 'attach':
      try {
        attach(message.wallMs, message.folders);
        link.sendMessage(0, { type: 'attached' });
      } catch (error) {
        link.sendMessage(0, { type: 'failed', failure: failureOf(error) });
      }
      return;
    case 'prepare':
      bundles.prepare(message.bundle);
      return;
    case 'ping':
      return link.sendMessage(0, { type: 'pong', count: message.count });
    case 'power-off':
      return powerOff();
    default:
      return;
  }
}

function open(id: number, message: Message & { type: 'open' }): void {
  const session = new InnerSession(id, message.request, { link, bundles, log, onEnd: () => sessions.delete(id) });
  sessions.set(id, session);
  session.start();
}

/** Sets the clock, and shows the machine's file system: as a whole at /host, its folders at their own places. */
function attach(wallMs: number, folders: readonly SharedFolder[]): void {
  if (attached) return;
  attached = true;
  const script = [`date -s @${Math.floor(wallMs / 1000)} >/dev/null`];
  script.push(`mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none host ${OUTER_ROOT}`);
  for (const { name, linkTarget } of folders) {
    if (linkTarget !== undefined) {
      symlinkSync(linkTarget, `/${name}`);
    } else {
      mkdirSync(`/${name}`, { recursive: true });
      script.push(`mount --bind '${quoted(`${OUTER_ROOT}/${name}`)}' '${quoted(`/${name}`)}'`);
    }
  }
  execFileSync('/bin/busybox', ['sh', '-e', '-c', script.join('\n')], { stdio: ['ignore', 'pipe', 'pipe'] });
}

/** For the inside of single quotes. */
function quoted(text: string): string {
  return text.replaceAll("'", `'\\''`);
}

function powerOff(): void {
  for (const session of sessions.values()) session.kill();
  process.exit(0); // init powers off after us
}

process.on('uncaughtException', (error) => {
  log(`inner daemon: ${error.stack ?? String(error)}`);
  process.exit(1);
});
