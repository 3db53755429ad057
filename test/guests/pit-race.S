# Real mode, interrupts off: writes to port 0xc1, waits for as many rounds as the 32-bit word at 0x600 says, and loads
# channel 0 as often as the 16-bit word at 0x604 says, with numbers that never come twice in 65536; and again. The number
# that it loads stands at 0x608 before it does so.
        .code16
        .globl  _start
_start: movb    $0x34, %al
        outb    %al, $0x43
        movw    $1, 0x604
        jmp     2f
1:      outb    %al, $0xc1
        movl    0x600, %ecx
        jecxz   2f
3:      decl    %ecx
        jnz     3b
2:      movw    0x604, %cx
        movw    0x608, %bx
4:      imulw   $25173, %bx, %bx
        addw    $13849, %bx
        movw    %bx, 0x608
        movb    %bl, %al
        outb    %al, $0x40
        movb    %bh, %al
        outb    %al, $0x40
        decw    %cx
        jnz     4b
        jmp     1b
