// Plays a guest that owns the process which holds it: loaded into that process by NODE_OPTIONS=--import, it waits until the process
// has given up what it gives up, tries what is told to it in VIVARIUM_TRY (JSON, see Tries in test/kvm/fence.test.ts), and
// writes what came of each into the file `answer`: 'done', or the error's code.
import { spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import {
  chmodSync,
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { isMainThread } from 'node:worker_threads';

const text = process.env.VIVARIUM_TRY;
if (isMainThread && process.argv.includes('--holder') && text !== undefined) {
  const timer = setInterval(() => {
    if (process.env.VIVARIUM_FENCE !== undefined && process.env.VIVARIUM_SEALED === undefined) return;
    clearInterval(timer);
    void tryAll(JSON.parse(text));
  }, 5);
}

async function tryAll({ answer, ...tries }) {
  const outcomes = {};
  for (const [name, [kind, ...about]] of Object.entries(tries)) {
    try {
      await KINDS[kind](...about);
      outcomes[name] = 'done';
    } catch (error) {
      outcomes[name] = error.code ?? String(error);
    }
  }
  // Nobody sees half of it.
  writeFileSync(`${answer}.new`, JSON.stringify(outcomes));
  renameSync(`${answer}.new`, answer);
}

function child() {
  const stats = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const [pid, ...others] = stats.filter((name) => {
    try {
      return (
        / (\d+) /.exec(readFileSync(`/proc/${name}/stat`, 'latin1').replace(/.*\) \S/, ''))[1] === `${process.pid}`
      );
    } catch {
      return false;
    }
  });
  if (pid === undefined || others.length > 0) throw new Error(`children: ${pid} ${others}`);
  return Number(pid);
}

const KINDS = {
  read: (path) => readFileSync(path),
  list: (path) => readdirSync(path),
  open: (path) => closeSync(openSync(path, 'r')),
  write: (path) => closeSync(openSync(path, 'r+')),
  make: (path) => {
    writeFileSync(path, 'x');
    unlinkSync(path);
  },
  link: (target, path) => {
    symlinkSync(target, path);
    try {
      readFileSync(path);
    } finally {
      unlinkSync(path);
    }
  },
  mode: (path) => chmodSync(path, 0o666),
  remove: (path) => unlinkSync(path),
  move: (from, to) => renameSync(from, to),
  start: (...argv) => {
    const { error } = spawnSync(argv[0], argv.slice(1));
    if (error !== undefined) throw error;
  },
  signal: (pid) => process.kill(pid, 'SIGKILL'),
  // Of the only child.
  ofChild: (file) => closeSync(openSync(`/proc/${child()}/${file}`, 'r')),
  signalChild: () => process.kill(child(), 'SIGKILL'),
  connect: (where, host) =>
    new Promise((resolve, reject) => {
      const socket = connect(host === undefined ? { path: where } : { port: where, host }, () =>
        resolve(socket.destroy()),
      ).once('error', reject);
    }),
  listen: (where) =>
    new Promise((resolve, reject) => {
      const server = createServer().once('error', reject);
      server.listen(where, () => server.close(resolve));
    }),
  datagram: (port) =>
    new Promise((resolve, reject) => {
      const socket = createSocket('udp4').once('error', reject);
      socket.send('x', port, '127.0.0.1', (error) => (error ? reject(error) : resolve(socket.close())));
    }),
  // How much of it would be written, in bytes.
  core: () => {
    const [, soft, hard] = /^Max core file size +(\S+) +(\S+)/m.exec(readFileSync('/proc/self/limits', 'latin1'));
    if (soft !== '0' || hard !== '0') throw new Error(`${soft} ${hard}`);
  },
};
