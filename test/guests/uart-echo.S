# Real mode: prints "ready\n" on COM1, then echoes what it receives until it gets 0x04, and writes 9 to the debug port.
        .code16
        .globl  _start
_start: movw    $text, %si
1:      lodsb
        testb   %al, %al
        jz      2f
        call    put
        jmp     1b
2:      movw    $0x3fd, %dx
        inb     %dx, %al
        testb   $1, %al
        jz      2b
        movw    $0x3f8, %dx
        inb     %dx, %al
        cmpb    $4, %al
        je      3f
        call    put
        jmp     2b
3:      movb    $9, %al
        outb    %al, $0xf4
put:    movb    %al, %ah
        movw    $0x3fd, %dx
4:      inb     %dx, %al
        testb   $0x20, %al
        jz      4b
        movb    %ah, %al
        movw    $0x3f8, %dx
        outb    %al, %dx
        ret
text:   .asciz  "ready\n"
