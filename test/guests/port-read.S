# Long mode, ring 0: reads the 32-bit port PORT, stores it at RESULT, and exits with 5.
        .code64
        .globl  _start
_start: movw    $PORT, %dx
        inl     %dx, %eax
        movq    $RESULT, %rdi
        movl    %eax, (%rdi)
        movb    $5, %al
        outb    %al, $0xf4
1:      jmp     1b
