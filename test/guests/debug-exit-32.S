# Protected mode: writes CODE to the debug-exit port.
        .code32
        .globl  _start
_start: movb    $CODE, %al
        outb    %al, $0xf4
        hlt
