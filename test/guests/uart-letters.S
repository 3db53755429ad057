# Real mode: writes the letters from A to Z on COM1, again and again.
        .code16
        .globl  _start
_start: movb    $'A', %bl
1:      movw    $0x3fd, %dx
2:      inb     %dx, %al
        testb   $0x20, %al
        jz      2b
        movb    %bl, %al
        movw    $0x3f8, %dx
        outb    %al, %dx
        incb    %bl
        cmpb    $'Z', %bl
        jbe     1b
        jmp     _start
