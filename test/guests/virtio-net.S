# Long mode: a driver of the virtio network device in slot 1 or above, by what the specifications of PCI and virtio say
# alone, that looks and never sleeps. It finds the function through ports 0xcf8 and 0xcfc, walks its capabilities, and sets
# up queues 0 (receive) and 1 (transmit) of one buffer each.
#   SENDS: 1 sends the frame of FRAME_BYTES at TX + 12 that its user has put there, waits for one, and exits with 0x21 by
#     port 0xf4; 0 sends back what comes, with its two addresses changed round.
#   RESETS: 1 resets the machine after each frame that it sent back.
# It exits with 0xe0 and up when something is not as it should be. What came stands at RX + 12, its length at TAKEN.
        .set    QUEUES, 0x40000
        .set    DESC, 0
        .set    DRIVER, 0x1000
        .set    DEVICE, 0x2000
        .set    QUEUE_BYTES, 0x3000
        .set    HEADER, 12
# Registers that stay: r15 address of the function, r14 common configuration, r13 notify, r12 its multiplier, r11 frames
# received, r10 frames sent.
        .include "virtio-pci.S"
        .code64
        .globl  _start
_start:
        find_virtio 0x10411af4

        # The list of capabilities: ebx is at one of them.
        movl    $0x34, %ecx
        call    config
        movzbl  %al, %ebx
next:   testl   %ebx, %ebx
        jz      listed
        movl    %ebx, %ecx
        call    config
        movl    %eax, %edi
        cmpb    $0x09, %al
        jne     skip
        call    place
        shrl    $24, %edi
        cmpb    $1, %dil
        cmoveq  %rax, %r14
        cmpb    $2, %dil
        jne     skip
        movq    %rax, %r13
        leal    16(%ebx), %ecx
        call    config
        movl    %eax, %r12d
skip:   movl    %ebx, %ecx
        call    config
        movzbl  %ah, %ebx
        jmp     next
listed: movb    $0xe1, %al
        testq   %r14, %r14
        jz      bad
        testq   %r13, %r13
        jz      bad
        movl    $6, %esi
        call    command

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

        # Queue eax of 8 entries at edi; its one descriptor has address ecx and, in edx, length and flags (16 bits each).
queue:  movw    %ax, 0x16(%r14)
        movw    $8, 0x18(%r14)
        movw    $0xffff, 0x1a(%r14)
        movl    %edi, 0x20(%r14)
        movl    $0, 0x24(%r14)
        leal    DRIVER(%rdi), %eax
        movl    %eax, 0x28(%r14)
        movl    $0, 0x2c(%r14)
        leal    DEVICE(%rdi), %eax
        movl    %eax, 0x30(%r14)
        movl    $0, 0x34(%r14)
        movq    %rcx, (%rdi)
        movzwl  %dx, %eax
        movl    %eax, 8(%rdi)
        shrl    $16, %edx
        movl    %edx, 12(%rdi)
        # No interrupts, please (VIRTQ_AVAIL_F_NO_INTERRUPT).
        movw    $1, DRIVER(%rdi)
        movw    $1, 0x1c(%r14)
        ret
        # Descriptor 0 of queue eax is the device's once more.
give:   movl    %eax, %esi
        imull   $QUEUE_BYTES, %eax, %edi
        incw    QUEUES + DRIVER + 2(%rdi)
        movw    %si, 0x16(%r14)
        movzwl  0x1e(%r14), %eax
        imull   %r12d, %eax
        movw    %si, (%r13,%rax)
        ret

        pci_routines
