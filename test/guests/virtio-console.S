# Long mode: a driver of the virtio console device in slot 1 or above, without MULTIPORT, that looks and never sleeps: queues 0
# (receive) and 1 (transmit) of one buffer each. It sends back what comes, every byte with its lowest bit changed, and counts these bytes
# at TAKEN (64 bits). It exits with 0xe0 and up by port 0xf4 when something is not as it should be.
        .include "virtio-pci.S"
# Registers that stay, beside those of virtio-pci.S: r11 buffers received, r10 buffers sent.
        .code64
        .globl  _start
_start:
        find_virtio 0x10431af4
        find_structures
        begin_virtio
        movq    $QUEUES, %rdi
        movl    $BUFFER, %ecx
        movl    $0x00020000 + BUFFER_BYTES, %edx
        xorl    %eax, %eax
        call    queue
        movq    $QUEUES + QUEUE_BYTES, %rdi
        movl    $BUFFER, %ecx
        xorl    %edx, %edx
        movl    $1, %eax
        call    queue
        movb    $0x0f, 0x14(%r14)
        xorl    %r11d, %r11d
        xorl    %r10d, %r10d

again:  xorl    %eax, %eax
        call    give
        movq    $QUEUES + DEVICE, %rdi
1:      movzwl  2(%rdi), %eax
        cmpw    %ax, %r11w
        je      1b
        movl    %r11d, %ecx
        andl    $7, %ecx
        movl    8(%rdi,%rcx,8), %ecx
        incl    %r11d
        addq    %rcx, TAKEN
        movl    %ecx, QUEUES + QUEUE_BYTES + 8
        movl    $BUFFER, %esi
2:      xorb    $1, (%rsi)
        incl    %esi
        loop    2b
        movl    $1, %eax
        call    give
        incl    %r10d
        movq    $QUEUES + QUEUE_BYTES + DEVICE, %rdi
3:      movzwl  2(%rdi), %eax
        cmpw    %ax, %r10w
        jne     3b
        jmp     again

bad:    outb    %al, $0xf4
4:      jmp     4b

        queue_routines
        pci_routines
