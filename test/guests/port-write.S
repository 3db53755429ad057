# Real mode: writes VALUE to the 8-bit port PORT, then exits with 6.
        .code16
        .globl  _start
_start: movw    $PORT, %dx
        movb    $VALUE, %al
        outb    %al, %dx
        movb    $6, %al
        outb    %al, $0xf4
1:      jmp     1b
