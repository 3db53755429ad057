# Long mode: a driver of the virtio network device in slot 1 or above, by what the specifications of PCI and virtio say
# alone, that looks and never sleeps. It finds the function through ports 0xcf8 and 0xcfc, walks its capabilities, and sets
# up queues 0 (receive) and 1 (transmit) of one buffer each.
#   SENDS: 1 sends the frame of FRAME_BYTES at TX + 12 that its user has put there, waits for one, and exits with 0x21 by
#     port 0xf4; 0 sends back what comes, with its two addresses changed round.
#   RESETS: 1 resets the machine after each frame that it sent back.
# It exits with 0xe0 and up when something is not as it should be. What came stands at RX + 12, its length at TAKEN.
        .set    HEADER, 12
# Registers that stay, beside those of virtio-pci.S: r11 frames received, r10 frames sent.
        .include "virtio-pci.S"
        .code64
        .globl  _start
_start:
        find_virtio 0x10411af4

        find_structures
        begin_virtio
        movq    $QUEUES, %rdi
        movl    $RX, %ecx
        movl    $0x00020000 + RX_BYTES, %edx
        xorl    %eax, %eax
        call    queue
        movq    $QUEUES + QUEUE_BYTES, %rdi
        movl    $TX, %ecx
        movl    $HEADER + FRAME_BYTES, %edx
        movl    $1, %eax
        call    queue
        movb    $0x0f, 0x14(%r14)
        xorl    %r11d, %r11d
        xorl    %r10d, %r10d
        xorl    %eax, %eax
        call    give
        .if     SENDS
        movl    $1, %eax
        call    give
        .endif

        # A used entry of queue 0.
loop:   movq    $QUEUES + DEVICE, %rdi
3:      movzwl  2(%rdi), %eax
        cmpw    %ax, %r11w
        je      3b
        movl    %r11d, %ecx
        andl    $7, %ecx
        movl    8(%rdi,%rcx,8), %ecx
        subl    $HEADER, %ecx
        movl    %ecx, TAKEN
        incl    %r11d
        .if     SENDS
        movb    $0x21, %al
        jmp     bad
        .endif
        movl    $RX + HEADER, %esi
        movl    $TX + HEADER, %edi
        cld
        rep     movsb
        movl    $RX + HEADER, %esi
        movl    $TX + HEADER + 6, %edi
        movsl
        movsw
        movl    $TX + HEADER, %edi
        movsl
        movsw
        movl    TAKEN, %eax
        addl    $HEADER, %eax
        movl    %eax, QUEUES + QUEUE_BYTES + 8
        movl    $1, %eax
        call    give
        incl    %r10d
        movq    $QUEUES + QUEUE_BYTES + DEVICE, %rdi
4:      movzwl  2(%rdi), %eax
        cmpw    %ax, %r10w
        jne     4b
        .if     RESETS
        movb    $0xfe, %al
        outb    %al, $0x64
5:      jmp     5b
        .endif
        xorl    %eax, %eax
        call    give
        jmp     loop

bad:    outb    %al, $0xf4
6:      jmp     6b

        queue_routines
        pci_routines
