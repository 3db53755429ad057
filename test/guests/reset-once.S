# Real mode: counts its lives in CMOS byte 0x50, which a reset keeps, and its marks at 0x3000, which power-on memory has
# not. The third life exits with the number of marks it finds, its own included.
        .code16
        .globl  _start
_start: incb    0x3000
        movb    $0x50, %al
        outb    %al, $0x70
        inb     $0x71, %al
        incb    %al
        movb    %al, %ah
        movb    $0x50, %al
        outb    %al, $0x70
        movb    %ah, %al
        outb    %al, $0x71
        cmpb    $3, %ah
        je      1f
        movb    $0xfe, %al
        outb    %al, $0x64
2:      hlt
        jmp     2b
1:      movb    0x3000, %al
        outb    %al, $0xf4
        hlt
