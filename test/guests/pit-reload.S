# Real mode, interrupts off: loads COUNT into channel 0 again and again. It writes to port 0xc2 between the two bytes and
# to 0xc1 after them.
        .code16
        .globl  _start
_start: movb    $0x34, %al
        outb    %al, $0x43
1:      movb    $(COUNT & 0xff), %al
        outb    %al, $0x40
        outb    %al, $0xc2
        movb    $(COUNT >> 8), %al
        outb    %al, $0x40
        outb    %al, $0xc1
        jmp     1b
