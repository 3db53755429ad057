# Long mode: counts in the 32-bit word at 0x200000, until the byte at 0x300000 is not 0; then it resets the machine by the
# keyboard controller.
        .code64
        .globl  _start
_start: movq    $0x200000, %rdi
        movq    $0x300000, %rsi
1:      incl    (%rdi)
        cmpb    $0, (%rsi)
        je      1b
        movb    $0xfe, %al
        outb    %al, $0x64
2:      hlt
        jmp     2b
