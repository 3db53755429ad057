/*
 * The guest agent: runs commands for the host over the guest channel. A static program for Linux on x86-64, started by
 * the default initramfs's /init, as PID 1 or as its child:  cc -static -Os -s -o vivarium-agent agent.c The frames are
 * in lib/agent/protocol.ts, the channel's registers in lib/abi/guest-channel.ts; both are kept to here. One thread, one
 * poll() loop; it never waits for a child or for a pipe. It must not let a child inherit its ports, its buffers or its
 * signals. Built with -DAGENT_STDIO it talks over stdin and stdout instead, for tests on any Linux, and then touches
 * neither the clock nor the power.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#ifndef AGENT_STDIO
#include <sys/io.h>
#include <sys/reboot.h>
#endif
#include "clock.h"

#define AGENT_VERSION "vivarium-agent 1"
#define PROTOCOL_VERSION 1u

enum { HEADER_BYTES = 12, FRAME_MAGIC = 0xa7, MAX_PING_BYTES = 64, MAX_NOTICE_BYTES = 200 };
enum { MAX_PAYLOAD_TO_GUEST = 2 << 20, MAX_DATA_BYTES = 64 << 10 };
/* Windows: what the host grants at first for each output, and what a session holds of its stdin. */
enum { INITIAL_WINDOW = 512 << 10, STDIN_WINDOW_BYTES = 512 << 10, GRANT_BYTES = 128 << 10 };
enum { BUFFER_BYTES = 256 << 10, PIPE_BYTES = 256 << 10, PAGE_BYTES = 4096 };
/* How long children may take to end before the machine is powered off. */
enum { POWEROFF_GRACE_MS = 3000 };

enum {
  START = 0x01,
  STDIN_DATA = 0x02,
  STDIN_END = 0x03,
  WINDOW = 0x04,
  SIGNAL = 0x05,
  CLOSE_OUTPUT = 0x06,
  PING = 0x07,
  POWEROFF = 0x08,
  SET_CLOCK = 0x09,
  RESEED = 0x0a,
  RESIZE = 0x0b,
  GET_CLOCK = 0x0c,
  HELLO = 0x81,
  STARTED = 0x82,
  STDOUT_DATA = 0x83,
  STDERR_DATA = 0x84,
  EXIT = 0x85,
  STDIN_WINDOW = 0x86,
  STDIN_CLOSED = 0x87,
  PONG = 0x88,
  CLOCK = 0x89,
};
enum { FLAG_TERMINAL = 1 };
enum { KIND_EXITED = 0, KIND_SIGNALLED = 1, KIND_NOT_STARTED = 2 };

enum { NOBODY = 0 };

struct session {
  struct session* next;
  uint32_t id; /* or NOBODY: who started it is gone, it runs on, and what it writes is read and dropped */
  pid_t pid;
  int in_fd;     /* the write end of the child's stdin, -1 when closed */
  int out_fd[2]; /* the read ends of its stdout and stderr, -1 when closed */
  int terminal;  /* in_fd and out_fd[0] are a pseudoterminal's master */
  uint32_t credit[2];
  int ended; /* the child was reaped; `status` is waitpid's */
  int status;
  long drain[2]; /* after the end: bytes that were in the pipe then */
  uint8_t* in_buffer;
  size_t in_offset, in_length;
  int in_end;        /* close stdin when the buffer is empty */
  size_t in_granted; /* bytes the host may still send */
  size_t in_written; /* bytes written since the last grant */
};

static struct session* sessions;
static int signal_fd = -1;
static int powering_off = -1; /* the action asked for, or -1 */
static uint64_t power_deadline_ns;

/* What waits to be sent, and what was received last. In the channel's case both are locked pages. */
static uint8_t *tx_buffer, *rx_buffer;
static size_t tx_start, tx_length;
/* The host may have something for us. While this is 0 it owes a ring. */
static int look = 1;
/* What we sent to is gone, what we say to it too. */
static int is_cut;

static void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("vivarium-agent: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
}

static void put32(uint8_t* at, uint32_t value) {
  memcpy(at, &value, 4);
}
static uint32_t get32(const uint8_t* at) {
  uint32_t value;
  memcpy(&value, at, 4);
  return value;
}

/* ---- the transport: start, wait descriptor, receive, send ------------------------------------------------------- */

#ifdef AGENT_STDIO

static int wake_fd(void) {
  return STDIN_FILENO;
}
static int wake_timeout_ms(void) {
  return -1;
}

static int transport_start(void) {
  tx_buffer = malloc(BUFFER_BYTES);
  rx_buffer = malloc(BUFFER_BYTES);
  if (!tx_buffer || !rx_buffer) return -1;
  return fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
}

/* Bytes now in rx_buffer, at most BUFFER_BYTES; 0 when there are none. */
static size_t transport_receive(void) {
  ssize_t count = read(STDIN_FILENO, rx_buffer, BUFFER_BYTES);
  if (count == 0) exit(0); /* the host is gone */
  look = count > 0;
  return count > 0 ? (size_t)count : 0;
}

static size_t transport_send(const uint8_t* bytes, size_t length) {
  ssize_t count = write(STDOUT_FILENO, bytes, length);
  if (count < 0 && errno != EINTR && errno != EAGAIN) exit(1);
  return count > 0 ? (size_t)count : 0;
}

static void transport_restart(void) {
  exit(3);
}

#else

enum { CHANNEL_BASE = 0x5a0, CHANNEL_PORTS = 0x20 };
enum {
  REG_ID = 0x00,
  REG_VERSION = 0x04,
  REG_READABLE = 0x08,
  REG_WRITABLE = 0x0c,
  REG_DATA = 0x10,
  REG_PAGE = 0x14,
  REG_COMMAND = 0x18
};
enum { COMMAND_OPEN = 1, COMMAND_RECEIVE = 2, COMMAND_SEND = 3 };
enum { CHANNEL_ID = 0x56495643, FEATURE_MEMORY = 1 << 16, MAX_SEGMENTS = 255 };
#define CHANNEL_CUT 0xffffffffu
enum { DMA_PAGES = 1 + 2 * (BUFFER_BYTES / PAGE_BYTES) };

static int tty_fd = -1;
static int use_memory;
static uint8_t* dma; /* the transfer page, then tx_buffer, then rx_buffer */
static uint64_t frame_number[DMA_PAGES];

static int wake_fd(void) {
  return tty_fd;
}
/* Without a ring there is only looking again. */
static int wake_timeout_ms(void) {
  return tty_fd < 0 ? 10 : -1;
}

static uint32_t reg_read(int reg) {
  return inl(CHANNEL_BASE + reg);
}
static void reg_write(int reg, uint32_t value) {
  outl(value, CHANNEL_BASE + reg);
}

/* Finds the physical pages of `dma`. They stay where they are: locked, never forked, never merged or collapsed, and
 * with compaction of locked pages off. */
static int find_frames(void) {
  int fd = open("/proc/sys/vm/compact_unevictable_allowed", O_WRONLY | O_CLOEXEC);
  if (fd >= 0) {
    ssize_t written = write(fd, "0", 1);
    close(fd);
    if (written != 1) return -1;
  }
  fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  off_t at = (off_t)((uintptr_t)dma / PAGE_BYTES * 8);
  ssize_t got = pread(fd, frame_number, sizeof frame_number, at);
  close(fd);
  if (got != (ssize_t)sizeof frame_number) return -1;
  for (int page = 0; page < DMA_PAGES; page++) {
    int present = (int)(frame_number[page] >> 63); /* Documentation/admin-guide/mm/pagemap.rst */
    frame_number[page] &= (1ull << 55) - 1;
    if (!present || frame_number[page] == 0) return -1;
  }
  return 0;
}

static void open_tty(void) {
  tty_fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (tty_fd < 0) return;
  struct termios settings;
  if (tcgetattr(tty_fd, &settings) != 0) {
    close(tty_fd);
    tty_fd = -1;
    return;
  }
  cfmakeraw(&settings);
  settings.c_cflag |= CLOCAL | CREAD;
  settings.c_cc[VMIN] = 1;
  settings.c_cc[VTIME] = 0;
  tcsetattr(tty_fd, TCSANOW, &settings);
}

static void channel_open(void) {
  reg_write(REG_COMMAND, COMMAND_OPEN);
  if (use_memory) reg_write(REG_PAGE, (uint32_t)frame_number[0]);
}

static int transport_start(void) {
  if (ioperm(CHANNEL_BASE, CHANNEL_PORTS, 1) != 0) {
    say("ioperm: %s", strerror(errno));
    return -1;
  }
  if (reg_read(REG_ID) != CHANNEL_ID) {
    say("this machine has no guest channel");
    return -1;
  }
  open_tty();
  if (tty_fd < 0) say("no /dev/ttyS1: the channel is polled");
  dma = mmap(NULL, DMA_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (dma == MAP_FAILED) return -1;
  madvise(dma, DMA_PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
  madvise(dma, DMA_PAGES * PAGE_BYTES, MADV_DONTFORK);
  int locked = mlock(dma, DMA_PAGES * PAGE_BYTES) == 0;
  memset(dma, 0, DMA_PAGES * PAGE_BYTES);
  tx_buffer = dma + PAGE_BYTES;
  rx_buffer = tx_buffer + BUFFER_BYTES;
  uint32_t version = reg_read(REG_VERSION);
  use_memory = (version & FEATURE_MEMORY) && locked && find_frames() == 0;
  if ((version & FEATURE_MEMORY) && !use_memory) say("no physical addresses: the channel is slow");
  channel_open();
  return 0;
}

/* The far end is another one than we spoke to (the machine was restored): the loop says hello to it. */
static size_t line_is_cut(void) {
  is_cut = look = 1;
  return 0;
}

/* One transfer of `length` bytes at `bytes`, which lie in dma; how many moved. */
static size_t transfer(uint32_t command, const uint8_t* bytes, size_t length) {
  uint32_t count = 0;
  size_t offset = (size_t)(bytes - dma);
  uint64_t end_gpa = 0;
  uint8_t* row = dma;
  while (length > 0) {
    size_t in_page = PAGE_BYTES - offset % PAGE_BYTES;
    size_t part = length < in_page ? length : in_page;
    uint64_t gpa = frame_number[offset / PAGE_BYTES] * PAGE_BYTES + offset % PAGE_BYTES;
    if (count > 0 && gpa == end_gpa) {
      put32(row + 8, get32(row + 8) + (uint32_t)part);
    } else {
      if (count == MAX_SEGMENTS) break;
      row = dma + 16 + 16 * count++;
      memcpy(row, &gpa, 8);
      put32(row + 8, (uint32_t)part);
      put32(row + 12, 0);
    }
    end_gpa = gpa + part;
    offset += part;
    length -= part;
  }
  put32(dma, count);
  __asm__ volatile("" ::: "memory");
  reg_write(REG_COMMAND, command);
  __asm__ volatile("" ::: "memory");
  uint32_t moved = get32(dma + 4);
  if (moved == 0xffffffffu) {
    say("the host refused a transfer; the channel is slow from now on");
    use_memory = 0;
    look = 1;
    return 0;
  }
  if (get32(dma + 8) == CHANNEL_CUT) return line_is_cut();
  look = get32(dma + 8) > 0;
  return moved;
}

static void drain_tty(void) {
  uint8_t bytes[64];
  while (tty_fd >= 0 && read(tty_fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes) continue;
}

static size_t transport_receive(void) {
  if (use_memory) return transfer(COMMAND_RECEIVE, rx_buffer, BUFFER_BYTES);
  size_t count = reg_read(REG_READABLE);
  if (count == CHANNEL_CUT) return line_is_cut();
  look = count > 0;
  if (count > BUFFER_BYTES) count = BUFFER_BYTES;
  if (count > 0) insb(CHANNEL_BASE + REG_DATA, rx_buffer, count);
  return count;
}

static size_t transport_send(const uint8_t* bytes, size_t length) {
  if (use_memory) return transfer(COMMAND_SEND, bytes, length);
  size_t room = reg_read(REG_WRITABLE);
  if (room == CHANNEL_CUT) return line_is_cut();
  if (length > room) length = room;
  if (length > 0) outsb(CHANNEL_BASE + REG_DATA, bytes, length);
  return length;
}

static void transport_restart(void) {
  channel_open();
}

#endif

/* ---- sending frames --------------------------------------------------------------------------------------------- */

/* Sends what the channel takes now. */
static void flush_tx(void) {
  while (tx_length > 0) {
    size_t sent = transport_send(tx_buffer + tx_start, tx_length);
    tx_start += sent;
    tx_length -= sent;
    if (sent == 0) break;
  }
  if (is_cut) tx_length = 0; /* nobody is there to take it */
  if (tx_length == 0) tx_start = 0;
}

/* Room for `bytes` more in tx_buffer. The host takes everything sooner or later, so this may wait. */
static void reserve_tx(size_t bytes) {
  for (;;) {
    if (BUFFER_BYTES - tx_start - tx_length >= bytes) return;
    if (tx_start > 0 && tx_length == 0) {
      tx_start = 0;
      continue;
    }
    flush_tx();
    if (BUFFER_BYTES - tx_length >= bytes) {
      memmove(tx_buffer, tx_buffer + tx_start, tx_length);
      tx_start = 0;
      return;
    }
    struct pollfd wake = {wake_fd(), POLLIN, 0};
    poll(&wake, 1, 20);
    look = 1;
#ifndef AGENT_STDIO
    drain_tty();
#endif
  }
}

static uint8_t* frame_header(uint32_t type, uint32_t session, size_t length) {
  uint8_t* at = tx_buffer + tx_start + tx_length;
  put32(at, (uint32_t)length);
  at[4] = (uint8_t)type;
  at[5] = FRAME_MAGIC;
  at[6] = at[7] = 0;
  put32(at + 8, session);
  tx_length += HEADER_BYTES + length;
  return at + HEADER_BYTES;
}

static void send_frame(uint32_t type, uint32_t session, const void* payload, size_t length) {
  reserve_tx(HEADER_BYTES + length);
  uint8_t* at = frame_header(type, session, length);
  if (length > 0) memcpy(at, payload, length);
}

static void send_word(uint32_t type, uint32_t session, uint32_t word) {
  send_frame(type, session, &word, 4);
}

static void send_exit(uint32_t session, uint32_t kind, uint32_t value) {
  uint32_t words[2] = {kind, value};
  send_frame(EXIT, session, words, sizeof words);
}

/* What init has to say to whoever runs the guest. */
static const char* notice = "";

static void send_hello(void) {
  struct utsname names;
  struct sysinfo memory;
  uint8_t payload[16 + 6 * 80 + MAX_NOTICE_BYTES + 1];
  uname(&names);
  sysinfo(&memory);
  uint64_t bytes = (uint64_t)memory.totalram * memory.mem_unit;
  put32(payload, PROTOCOL_VERSION);
  put32(payload + 4, (uint32_t)sysconf(_SC_NPROCESSORS_ONLN));
  memcpy(payload + 8, &bytes, 8);
  const char* texts[] = {AGENT_VERSION, names.sysname, names.release, names.version, names.machine};
  size_t at = 16;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    size_t length = strlen(texts[i]) + 1;
    memcpy(payload + at, texts[i], length);
    at += length;
  }
  at += (size_t)snprintf((char*)payload + at, MAX_NOTICE_BYTES + 1, "%.*s", MAX_NOTICE_BYTES, notice) + 1;
  send_frame(HELLO, 0, payload, at);
}

/* ---- sessions --------------------------------------------------------------------------------------------------- */

static struct session* find_session(uint32_t id) {
  if (id == NOBODY) return NULL;
  for (struct session* s = sessions; s; s = s->next)
    if (s->id == id) return s;
  return NULL;
}

static void close_fd(int* fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

static void free_session(struct session* gone) {
  for (struct session** at = &sessions; *at; at = &(*at)->next) {
    if (*at != gone) continue;
    *at = gone->next;
    break;
  }
  close_fd(&gone->in_fd);
  close_fd(&gone->out_fd[0]);
  close_fd(&gone->out_fd[1]);
  free(gone->in_buffer);
  free(gone);
}

/* The child's half of start: never returns. */
static void become(int in, int out, int err, int report, const char* cwd, char** argv, char** env) {
  setsid();
  sigset_t none;
  sigemptyset(&none);
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
#ifndef AGENT_STDIO
  ioperm(CHANNEL_BASE, CHANNEL_PORTS, 0);
#endif
  /* The pipes' numbers are above 2: main() made sure that 0 to 2 are taken. */
  ioctl(in, TIOCSCTTY, 0); /* of a terminal; a pipe refuses it */
  if (dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(err, 2) >= 0 && chdir(cwd) == 0) {
    environ = env;
    execvp(argv[0], argv); /* searches the PATH of `env` */
  }
  int error = errno;
  ssize_t ignored = write(report, &error, sizeof error);
  (void)ignored;
  _exit(127);
}

static void set_size(int master, uint32_t size) {
  struct winsize given = {.ws_col = (unsigned short)size, .ws_row = (unsigned short)(size >> 16)};
  ioctl(master, TIOCSWINSZ, &given);
}

/* A pseudoterminal in place of two pipes: its master twice, for what is read and written, and its slave twice. */
static int make_terminal(int in[2], int out[2], uint32_t size) {
  int unlock = 0;
  out[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (out[0] < 0 || ioctl(out[0], TIOCSPTLCK, &unlock) != 0) return -1;
  in[0] = ioctl(out[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  in[1] = fcntl(out[0], F_DUPFD_CLOEXEC, 3);
  out[1] = in[0] < 0 ? -1 : fcntl(in[0], F_DUPFD_CLOEXEC, 3);
  if (in[1] < 0 || out[1] < 0) return -1;
  set_size(out[0], size);
  return 0;
}

static int make_pipe(int ends[2]) {
  if (pipe2(ends, O_CLOEXEC) != 0) {
    ends[0] = ends[1] = -1;
    return -1;
  }
  fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES); /* as much as the kernel allows; the default will do */
  return 0;
}

/* 0, or the errno that kept the command from starting. */
static int spawn(struct session* s, const char* cwd, char** argv, char** env, uint32_t size) {
  int pipes[4][2] = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}}; /* stdin, stdout, stderr, report */
  int error = 0;
  if (s->terminal && make_terminal(pipes[0], pipes[1], size) != 0) error = errno;
  for (int i = s->terminal ? 3 : 0; i < 4 && !error; i++)
    if (make_pipe(pipes[i]) != 0) error = errno;
  if (!error) {
    s->pid = fork();
    if (s->pid < 0) error = errno;
    int err = pipes[s->terminal ? 1 : 2][1];
    if (s->pid == 0) become(pipes[0][0], pipes[1][1], err, pipes[3][1], cwd, argv, env);
  }
  if (!error) {
    close_fd(&pipes[3][1]);
    ssize_t got;
    do got = read(pipes[3][0], &error, sizeof error); /* ends when the child executes or fails */
    while (got < 0 && errno == EINTR);
    if (got == (ssize_t)sizeof error)
      waitpid(s->pid, NULL, 0);
    else
      error = 0;
  }
  if (!error) {
    s->in_fd = pipes[0][1];
    s->out_fd[0] = pipes[1][0];
    s->out_fd[1] = pipes[2][0];
    pipes[0][1] = pipes[1][0] = pipes[2][0] = -1;
    fcntl(s->in_fd, F_SETFL, O_NONBLOCK);
    fcntl(s->out_fd[0], F_SETFL, O_NONBLOCK);
    fcntl(s->out_fd[1], F_SETFL, O_NONBLOCK);
  }
  for (int i = 0; i < 4; i++) {
    close_fd(&pipes[i][0]);
    close_fd(&pipes[i][1]);
  }
  return error;
}

/* The next NUL-terminated text of [*at, end), or NULL. */
static char* next_text(char** at, const char* end) {
  char* text = *at;
  if (text >= end) return NULL;
  char* stop = memchr(text, 0, (size_t)(end - text));
  if (!stop) return NULL;
  *at = stop + 1;
  return text;
}

static int start(uint32_t id, uint8_t* payload, size_t length) {
  if (length < 16) return EPROTO;
  uint32_t flags = get32(payload), argc = get32(payload + 4), envc = get32(payload + 8);
  if (flags > FLAG_TERMINAL) return ENOTSUP;
  /* Each text takes at least its NUL. */
  if (argc == 0 || argc > length || envc > length) return EINVAL;
  if (id == NOBODY || find_session(id)) return EEXIST;
  char *at = (char*)payload + 16, *end = (char*)payload + length;
  char* cwd = next_text(&at, end);
  char **argv = calloc((size_t)argc + 1, sizeof *argv), **env = calloc((size_t)envc + 1, sizeof *env);
  struct session* s = calloc(1, sizeof *s);
  int error = argv && env && s ? 0 : ENOMEM;
  if (!error && !cwd) error = EINVAL;
  for (uint32_t i = 0; i < argc && !error; i++)
    if (!(argv[i] = next_text(&at, end))) error = EINVAL;
  for (uint32_t i = 0; i < envc && !error; i++)
    if (!(env[i] = next_text(&at, end))) error = EINVAL;
  if (!error) {
    s->id = id;
    s->in_fd = s->out_fd[0] = s->out_fd[1] = -1;
    s->credit[0] = s->credit[1] = INITIAL_WINDOW;
    s->terminal = flags == FLAG_TERMINAL;
    error = spawn(s, cwd, argv, env, get32(payload + 12));
  }
  if (!error) {
    s->next = sessions;
    sessions = s;
    send_word(STARTED, id, (uint32_t)s->pid);
    if (s->terminal) send_frame(STDERR_DATA, id, NULL, 0);
    s->in_granted = STDIN_WINDOW_BYTES;
    send_word(STDIN_WINDOW, id, STDIN_WINDOW_BYTES);
  } else {
    free(s);
  }
  free(argv);
  free(env);
  return error;
}

static void stdin_gone(struct session* s) {
  if (s->in_fd < 0) return;
  close_fd(&s->in_fd);
  free(s->in_buffer);
  s->in_buffer = NULL;
  s->in_length = 0;
  if (!s->in_end) send_frame(STDIN_CLOSED, s->id, NULL, 0);
}

/* Bytes that the pipe took, 0 when it is full; on a broken pipe stdin is gone and all count as taken. */
static size_t write_stdin(struct session* s, const uint8_t* bytes, size_t length) {
  ssize_t count = write(s->in_fd, bytes, length);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (count < 0) {
    stdin_gone(s);
    return length;
  }
  s->in_written += (size_t)count;
  if (s->in_written >= GRANT_BYTES) {
    s->in_granted += s->in_written;
    send_word(STDIN_WINDOW, s->id, (uint32_t)s->in_written);
    s->in_written = 0;
  }
  return (size_t)count;
}

static void pump_stdin(struct session* s) {
  if (s->in_fd >= 0 && s->in_length > 0) {
    size_t count = write_stdin(s, s->in_buffer + s->in_offset, s->in_length);
    if (s->in_fd < 0) return;
    s->in_offset += count;
    s->in_length -= count;
    if (s->in_length == 0) s->in_offset = 0;
  }
  if (s->in_fd >= 0 && s->in_end && s->in_length == 0) {
    if (s->terminal && write(s->in_fd, "\4", 1) < 0 && errno == EAGAIN) return; /* Ctrl-D, VEOF */
    close_fd(&s->in_fd);
  }
}

/* -1 when the host sent more than it was granted. */
static int take_stdin(uint32_t id, const uint8_t* bytes, size_t length) {
  struct session* s = find_session(id);
  if (!s || s->in_fd < 0 || s->in_end) return 0; /* it has ended, or closed its stdin, meanwhile */
  if (length > s->in_granted) return -1;
  s->in_granted -= length;
  if (s->in_length == 0) {
    size_t count = write_stdin(s, bytes, length);
    bytes += count;
    length -= count;
  }
  if (length == 0 || s->in_fd < 0) return 0;
  if (!s->in_buffer && !(s->in_buffer = malloc(STDIN_WINDOW_BYTES))) {
    stdin_gone(s);
    return 0;
  }
  if (s->in_offset + s->in_length + length > STDIN_WINDOW_BYTES) {
    memmove(s->in_buffer, s->in_buffer + s->in_offset, s->in_length);
    s->in_offset = 0;
  }
  memcpy(s->in_buffer + s->in_offset + s->in_length, bytes, length);
  s->in_length += length;
  return 0;
}

static void output_ended(struct session* s, int which) {
  close_fd(&s->out_fd[which]);
  if (s->id != NOBODY) send_frame(which == 0 ? STDOUT_DATA : STDERR_DATA, s->id, NULL, 0);
}

/* One read of a child's output into a frame; 0 when there is nothing more to do now. */
static int pump_output(struct session* s, int which) {
  if (s->out_fd[which] < 0 || s->credit[which] == 0) return 0;
  size_t want = s->credit[which] < MAX_DATA_BYTES ? s->credit[which] : MAX_DATA_BYTES;
  if (s->ended && (long)want > s->drain[which]) want = (size_t)s->drain[which];
  if (want == 0) {
    output_ended(s, which);
    return 0;
  }
  reserve_tx(HEADER_BYTES + want);
  uint8_t* at = tx_buffer + tx_start + tx_length + HEADER_BYTES;
  ssize_t count = read(s->out_fd[which], at, want);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
    if (s->ended) output_ended(s, which);
    return 0;
  }
  if (count <= 0) {
    output_ended(s, which);
    return 0;
  }
  if (s->id != NOBODY) {
    frame_header(which == 0 ? STDOUT_DATA : STDERR_DATA, s->id, (size_t)count);
    s->credit[which] -= (uint32_t)count;
  }
  if (s->ended) s->drain[which] -= count;
  return 1;
}

/* Reports the end of a child whose output is drained; 1 when the session is gone. */
static int finish(struct session* s) {
  if (!s->ended) return 0;
  for (int which = 0; which < 2; which++)
    if (s->out_fd[which] >= 0 && s->drain[which] == 0) output_ended(s, which);
  if (s->out_fd[0] >= 0 || s->out_fd[1] >= 0) return 0;
  if (s->id != NOBODY && WIFSIGNALED(s->status))
    send_exit(s->id, KIND_SIGNALLED, (uint32_t)WTERMSIG(s->status));
  else if (s->id != NOBODY)
    send_exit(s->id, KIND_EXITED, (uint32_t)WEXITSTATUS(s->status));
  free_session(s);
  return 1;
}

/* Takes every child that has ended: our sessions', and as PID 1 everybody's orphans. */
static void reap(void) {
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    for (struct session* s = sessions; s; s = s->next) {
      if (s->pid != pid || s->ended) continue;
      s->ended = 1;
      s->status = status;
      for (int which = 0; which < 2; which++) {
        /* Whoever still holds the pipe may write on: what is in it now is what the child's end includes. */
        int waiting = 0;
        if (s->out_fd[which] >= 0) ioctl(s->out_fd[which], FIONREAD, &waiting);
        if (s->terminal && which == 0) waiting = INT32_MAX; /* until there is none: it comes in the reading */
        s->drain[which] = waiting;
      }
      break;
    }
  }
}

static void signal_sessions(int number) {
  for (struct session* s = sessions; s; s = s->next)
    if (!s->ended) kill(-s->pid, number);
}

/* ---- power ------------------------------------------------------------------------------------------------------ */

static void begin_poweroff(uint32_t action) {
  if (action > 2 || powering_off >= 0) return;
  powering_off = (int)action;
  power_deadline_ns = monotonic_ns() + POWEROFF_GRACE_MS * 1000000ull;
  signal_sessions(SIGTERM);
  signal_sessions(SIGCONT);
}

static long grace_left_ms(void) {
  uint64_t now_ns = monotonic_ns();
  return now_ns < power_deadline_ns ? (long)((power_deadline_ns - now_ns) / 1000000) : 0;
}

static void finish_poweroff(void) {
#ifdef AGENT_STDIO
  signal_sessions(SIGKILL);
  exit(10 + powering_off);
#else
  static const int actions[] = {RB_POWER_OFF, RB_AUTOBOOT, RB_HALT_SYSTEM};
  sync();
  reboot(actions[powering_off]);
  say("reboot: %s", strerror(errno));
  powering_off = -1;
#endif
}

/* ---- receiving frames ------------------------------------------------------------------------------------------- */

static uint8_t header[HEADER_BYTES];
static size_t header_have;
static uint8_t* payload_buffer; /* of any frame but stdin data, which is passed on as it comes */
static size_t payload_have;

static void begin_again(void) {
  header_have = payload_have = tx_start = tx_length = 0;
  free(payload_buffer);
  payload_buffer = NULL;
  is_cut = 0;
  transport_restart();
  send_hello();
}

/* The channel's two ends disagree: end all sessions and begin again. */
static void start_over(const char* why) {
  say("%s; starting over", why);
  signal_sessions(SIGKILL);
  while (sessions) free_session(sessions); /* reap() takes the children */
  begin_again();
}

/* This guest is a clone, with another host end than its sessions had: what they run is its work, and goes on. */
static void line_was_cut(void) {
  for (struct session* s = sessions; s; s = s->next) {
    s->id = NOBODY;
    close_fd(&s->in_fd);
    s->in_length = 0;
    s->credit[0] = s->credit[1] = UINT32_MAX;
  }
  begin_again();
}

static void handle_frame(uint32_t type, uint32_t id, uint8_t* payload, size_t length) {
  struct session* s = find_session(id);
  uint32_t word = length >= 4 ? get32(payload) : 0;
  switch (type) {
    case START: {
      int error = powering_off >= 0 ? ESHUTDOWN : start(id, payload, length);
      if (error) send_exit(id, KIND_NOT_STARTED, (uint32_t)error);
      break;
    }
    case STDIN_END:
      if (!s || s->in_end) break;
      s->in_end = 1;
      pump_stdin(s);
      break;
    case WINDOW:
      if (!s || length < 8 || word < 1 || word > 2) break;
      if (__builtin_add_overflow(s->credit[word - 1], get32(payload + 4), &s->credit[word - 1]))
        s->credit[word - 1] = UINT32_MAX;
      break;
    case SIGNAL:
      if (s && !s->ended && word >= 1 && word <= 64) kill(-s->pid, (int)word);
      break;
    case RESIZE:
      if (s && s->terminal && length >= 4 && s->out_fd[0] >= 0) set_size(s->out_fd[0], word);
      break;
    case CLOSE_OUTPUT:
      if (s && word >= 1 && word <= 2 && s->out_fd[word - 1] >= 0) output_ended(s, (int)word - 1);
      break;
    case PING: send_frame(PONG, id, payload, length < MAX_PING_BYTES ? length : MAX_PING_BYTES); break;
    case POWEROFF: begin_poweroff(word); break;
    case SET_CLOCK: {
      uint64_t times[2]; /* the calendar's, and the monotonic clock's then */
      if (length < 8) break;
      times[1] = monotonic_ns();
      memcpy(times, payload, length < sizeof times ? 8 : sizeof times);
      set_clock(times[0], times[1]);
      break;
    }
    case GET_CLOCK: {
      uint64_t now_ns = monotonic_ns();
      send_frame(CLOCK, id, &now_ns, sizeof now_ns);
      break;
    }
    case RESEED:
      if (length > 0 && length <= MAX_SEED_BYTES) reseed(payload, length);
      break;
    default: /* a later protocol's frame that this agent can do without */ break;
  }
}

static void take_bytes(const uint8_t* bytes, size_t count) {
  while (count > 0) {
    if (header_have < HEADER_BYTES) {
      size_t part = HEADER_BYTES - header_have < count ? HEADER_BYTES - header_have : count;
      memcpy(header + header_have, bytes, part);
      header_have += part;
      bytes += part;
      count -= part;
      if (header_have < HEADER_BYTES) return;
      payload_have = 0;
      if (header[5] != FRAME_MAGIC || header[6] || header[7]) return start_over("no frame header where one is due");
      if (get32(header) > MAX_PAYLOAD_TO_GUEST) return start_over("a frame that is too long");
    }
    size_t length = get32(header);
    uint32_t type = header[4], id = get32(header + 8);
    size_t part = length - payload_have < count ? length - payload_have : count;
    if (type == STDIN_DATA) {
      if (part > 0 && take_stdin(id, bytes, part) != 0) return start_over("more stdin than was granted");
    } else if (length > 0) {
      if (!payload_buffer && !(payload_buffer = malloc(length))) return start_over("out of memory");
      memcpy(payload_buffer + payload_have, bytes, part);
    }
    payload_have += part;
    bytes += part;
    count -= part;
    if (payload_have < length) return;
    header_have = 0;
    if (type != STDIN_DATA) handle_frame(type, id, payload_buffer, length);
    free(payload_buffer);
    payload_buffer = NULL;
  }
}

/* ---- the loop --------------------------------------------------------------------------------------------------- */

static struct pollfd* poll_set;
static size_t poll_capacity;

static void ensure_polls(size_t count) {
  if (count <= poll_capacity) return;
  struct pollfd* grown = realloc(poll_set, (count + 16) * sizeof *grown);
  if (!grown) abort();
  poll_set = grown;
  poll_capacity = count + 16;
}

/* Waits for the host, a child's end, output or room for input. */
static void wait_for_something(void) {
  size_t count = 2;
  ensure_polls(2);
  poll_set[0] = (struct pollfd){wake_fd(), POLLIN, 0};
  poll_set[1] = (struct pollfd){signal_fd, POLLIN, 0};
  for (struct session* s = sessions; s; s = s->next) {
    ensure_polls(count + 3);
    /* Without events poll still reports that the last reader of a stdin is gone. */
    /* Of a terminal it would be that the command has closed it, again and again. */
    if (s->in_fd >= 0 && (!s->terminal || s->in_length > 0))
      poll_set[count++] = (struct pollfd){s->in_fd, s->in_length > 0 ? POLLOUT : 0, 0};
    for (int which = 0; which < 2; which++)
      if (s->out_fd[which] >= 0 && s->credit[which] > 0)
        poll_set[count++] = (struct pollfd){s->out_fd[which], POLLIN, 0};
  }
  int timeout_ms = wake_timeout_ms();
  if (powering_off >= 0) timeout_ms = (int)grace_left_ms();
  poll(poll_set, (nfds_t)count, timeout_ms);
  for (size_t i = 2; i < count; i++) {
    if (!(poll_set[i].revents & POLLERR)) continue;
    for (struct session* s = sessions; s; s = s->next)
      if (s->in_fd == poll_set[i].fd) stdin_gone(s);
  }
  if (poll_set[1].revents & POLLIN) {
    struct signalfd_siginfo info;
    while (read(signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
      /* Asked to end: as PID 1 the kernel's ctrl-alt-del arrives as SIGINT. */
      if (info.ssi_signo == SIGTERM) begin_poweroff(0);
      if (info.ssi_signo == SIGINT) begin_poweroff(1);
    }
  }
  if (poll_set[0].revents || wake_timeout_ms() >= 0) look = 1;
#ifndef AGENT_STDIO
  if (poll_set[0].revents & POLLIN) drain_tty();
  if (poll_set[0].revents & (POLLHUP | POLLERR | POLLNVAL)) close_fd(&tty_fd);
#endif
}

/* One round over everybody; 1 when there may be more to do at once. Output gathers in tx_buffer meanwhile. */
static int serve_sessions(void) {
  int more = 0;
  for (struct session *s = sessions, *next; s; s = next) {
    next = s->next;
    pump_stdin(s);
    more |= pump_output(s, 0);
    more |= pump_output(s, 1);
    finish(s);
  }
  return more;
}

int main(void) {
  if (getenv("VIVARIUM_NOTICE")) notice = getenv("VIVARIUM_NOTICE");
  /* 0 to 2 are taken, so that no pipe of a child gets such a number. */
  int null_fd = open("/dev/null", O_RDWR);
  while (null_fd >= 0 && null_fd < 3) null_fd = dup(null_fd);
  if (null_fd >= 3) close(null_fd);
  /* Whatever our parent left open is not for our children. */
  syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);

  sigset_t taken;
  sigemptyset(&taken);
  sigaddset(&taken, SIGCHLD);
  sigaddset(&taken, SIGTERM);
  if (getpid() == 1) {
    sigaddset(&taken, SIGINT);
#ifndef AGENT_STDIO
    reboot(RB_DISABLE_CAD);
#endif
  }
  sigprocmask(SIG_BLOCK, &taken, NULL);
  signal(SIGPIPE, SIG_IGN);
  signal_fd = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signal_fd < 0 || transport_start() != 0) return 1;
  send_hello();

  for (;;) {
    if (look) take_bytes(rx_buffer, transport_receive());
    if (is_cut) line_was_cut();
    reap();
    int more = serve_sessions();
    if (more && tx_start + tx_length < BUFFER_BYTES / 2) continue; /* fill the buffer: a transfer costs an exit */
    flush_tx();
    if (powering_off >= 0 && (!sessions || grace_left_ms() == 0)) finish_poweroff();
    if (!more && !look) wait_for_something();
  }
}
