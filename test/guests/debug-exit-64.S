# Long mode: writes CODE to the debug-exit port.
        .code64
        .globl  _start
_start: movb    $CODE, %al
        outb    %al, $0xf4
        hlt
