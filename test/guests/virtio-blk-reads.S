# Long mode: a driver of the virtio block device in slot 1 or above that looks and never sleeps: it reads sector 0 into DATA, one request
# after the other, and counts those that are done at TAKEN (32 bits). After READS of them it exits with 0x21 by port 0xf4; with 0xe0 and up
# when something is not as it should be.
        .include "virtio-pci.S"
        .set    REQUEST, 0x50000
        .set    STATUS, 0x50010
        .code64
        .globl  _start
_start:
        find_virtio 0x10421af4
        find_structures
        begin_virtio
        movq    $QUEUES, %rdi
        movl    $REQUEST, %ecx
        movl    $16, %edx
        xorl    %eax, %eax
        call    queue
        movb    $0x0f, 0x14(%r14)
        # Header, data, status (virtio 1.2, 5.2.6).
        movl    $0x00010001, QUEUES + 12
        movq    $DATA, QUEUES + 16
        movl    $512, QUEUES + 24
        movl    $0x00020003, QUEUES + 28
        movq    $STATUS, QUEUES + 32
        movl    $1, QUEUES + 40
        movl    $2, QUEUES + 44
        movq    $0, REQUEST
        movq    $0, REQUEST + 8
        xorl    %r11d, %r11d

again:  movb    $0xff, STATUS
        xorl    %eax, %eax
        call    give
        incl    %r11d
1:      cmpw    %r11w, QUEUES + DEVICE + 2
        jne     1b
        cmpb    $0, STATUS
        movb    $0xe4, %al
        jne     bad
        movl    %r11d, TAKEN
        cmpl    $READS, %r11d
        jne     again
        movb    $0x21, %al
bad:    outb    %al, $0xf4
2:      jmp     2b

        queue_routines
        pci_routines
