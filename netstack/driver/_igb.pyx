"""igb: the device as set-up code and ethtool see it.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       settings of a host, of ethtool   netstack/host.py, netstack/commands.py
Out      the adapter and its registers    driver/_igb_main.pyx
Context  process context, with the GIL
Kernel   igb_change_mtu(), igb_main.c; igb_set_ringparam(), igb_set_coalesce(), igb_ethtool.c
"""

cimport cython

import os

from libc.string cimport memcpy, memset
from posix.unistd cimport getpid

from netstack._abi cimport fetch_and32, fetch_or32, load_relaxed64, u8, u32, u64, uintptr_t
from netstack._net cimport IFF_ALLMULTI, IFF_PROMISC, IFF_RUNNING, MAX_DEVICES, NETIF_F_GRO_HW, NETIF_F_RXCSUM, Net
from netstack.device._igb_csr cimport rd32
from netstack.device._igb_nic cimport IGB_STAT_TPR, ether_addr_to_u64, igb_set_missed
from netstack.device._igb_regs cimport (
    IGB_MAX_QUEUES, E1000_EITR, E1000_GORCH, E1000_GORCL, E1000_GOTCH, E1000_GOTCL, E1000_RQDPC,
)
from netstack.device._wire cimport wire as wire_t
from netstack.driver._igb_channels cimport igb_rss_default, igb_set_channels, igb_set_rss
from netstack.driver._igb_hw cimport igb_rar_set, igb_set_rx_mode, igb_set_vlan_mode, igb_write_mc_addr_list
from netstack.driver._igb_itr cimport igb_set_coalesce
from netstack.driver._igb_main cimport (
    igb_close, igb_open, igb_probe, igb_remove, igb_set_offload, igb_watchdog_task,
)
from netstack.driver._igb_ring cimport igb_drain_rx, igb_queued_frames, igb_set_ringparam
from netstack.driver._igb_selftest cimport IGB_TEST_LINK, IGB_TEST_NR, igb_diag_test
from netstack.irq._cpu cimport cpus_release, cpus_take, cpus_wake, synchronize
from netstack.napi._napi cimport softnet_data

from netstack.device._igb_regs import e1000_reg
from netstack.driver import igb_ethtool

cdef enum:
    ETH_OVERHEAD = 14 + 4 + 4      # header, frame check sequence, VLAN tag
    MAX_MC = 64


@cython.final
@cython.no_gc_clear
cdef class Igb:
    """An igb on a wire, with its driver, on one CPU of a host.

    ``cpu`` and ``wire`` are a ``Cpu`` and a wire, which the device then keeps alive, or their addresses. Names and
    values of what it tells are ethtool's.
    """
    cdef igb_adapter *adapter
    cdef Net net
    cdef object cpu, wire          # kept, not used
    cdef readonly bint running
    cdef dict totals               # statistics registers, added up: reading clears them
    cdef int process               # whose it is
    cdef public int _fail_open_at  # for tests: the step of opening that fails

    def __cinit__(self, Net net not None, cpu not None, wire not None, str name, bytes mac, int mtu=1500,
                  int ring=256, u32 ifindex=1, int queues=1):
        """Probe. The device is closed yet."""
        self._fail_open_at, self.process = -1, getpid()
        cdef uintptr_t cpu_address = getattr(cpu, "address", cpu)
        cdef uintptr_t wire_address = getattr(wire, "address", wire)
        if cpu_address == 0 or wire_address == 0:
            raise ValueError("cpu and wire are objects with an address, or addresses, but not 0")
        igb_ethtool.check_names(name, mac)
        if not 1 <= ifindex <= MAX_DEVICES or net.ptr.devices[ifindex - 1] != NULL:
            raise ValueError(f"ifindex={ifindex}: give one from 1 to {MAX_DEVICES} that no device has")
        igb_ethtool.check_ring("ring", ring)
        igb_ethtool.check_mtu(mtu)
        igb_ethtool.check_queues(queues)
        self.net, self.cpu, self.wire = net, cpu, wire
        self.totals = dict.fromkeys([*igb_ethtool.REGISTERS, *igb_ethtool.OTHER_TOTALS], 0)
        self.adapter = igb_probe(net, <softnet_data *>cpu_address, <wire_t *>wire_address, name.encode(), mac,
                                 queues)
        for i in range(IGB_MAX_QUEUES):
            self.adapter.q_vector[<int>i].rx.count = self.adapter.q_vector[<int>i].tx.count = ring
        igb_rss_default(self.adapter)
        self.adapter.dev.mtu = mtu
        self.adapter.max_frame_size = mtu + ETH_OVERHEAD
        self.set_rss(os.urandom(40))
        self.adapter.dev.ifindex = ifindex
        net.ptr.devices[ifindex - 1] = &self.adapter.dev
        if net.ptr.nr_devices < ifindex:
            net.ptr.nr_devices = ifindex

    def __dealloc__(self):
        if self.adapter == NULL or self.process != getpid():
            return                 # in a fork of the process the epoll sets that hold its vectors are the parent's
        if self.running:
            igb_close(self.adapter)
        self.net.ptr.devices[self.adapter.dev.ifindex - 1] = NULL
        igb_remove(self.adapter)

    @property
    def address(self):
        """The net_device, for set-up code of other stages."""
        return <uintptr_t>&self.adapter.dev

    @property
    def hw_address(self):
        """The hw_device: what sits on the CPU's bus."""
        return <uintptr_t>&self.adapter.nic.hw

    @property
    def name(self):
        """Of the device."""
        return self.adapter.dev.name.decode()

    @property
    def mac(self):
        """Its address, 6 bytes."""
        return self.adapter.dev.dev_addr[:6]

    @property
    def mtu(self):
        """Bytes of the largest packet to send."""
        return self.adapter.dev.mtu

    @property
    def carrier(self):
        """True while the wire is there. [netif_carrier_ok()]"""
        return self.adapter.dev.flags & IFF_RUNNING != 0

    @property
    def flags(self):
        """IFF_* bits."""
        return self.adapter.dev.flags

    @property
    def features(self):
        """NETIF_F_* bits. What is set holds from the next frame on. [igb_set_features()]

        Without rx-checksumming nothing can be coalesced: rx-gro-hw goes off with it. [netdev_fix_features()]
        """
        return self.adapter.dev.features

    @features.setter
    def features(self, u64 bits):
        if not bits & NETIF_F_RXCSUM and self.hw_features & NETIF_F_GRO_HW:
            bits &= ~<u64>NETIF_F_GRO_HW
        with nogil:
            cpus_take(self.adapter.n)
            self.adapter.dev.features = bits
            if self.running:
                igb_set_vlan_mode(self.adapter)
            cpus_release(self.adapter.n)
        igb_set_offload(self.adapter)

    @property
    def hw_features(self):
        """NETIF_F_* bits that may be switched; some may on wires with virtio headers only."""
        return self.adapter.hw_features

    # ---- open, close, and what needs the device closed for a moment

    def open(self):
        """Let frames come and go. OSError ENOMEM, ENOSPC, EBADF: the device is closed as before."""
        if not self.running:
            igb_open(self.adapter, self._fail_open_at)
            self.running = True

    def close(self):
        """Stop, and end what the NIC and the rings hold (NIC_DROP_RESET)."""
        if self.running:
            self.running = False
            igb_close(self.adapter)

    def watchdog(self):
        """Do what the driver does every two seconds. [igb_watchdog_task()]"""
        if not self.running:
            return
        with nogil:
            cpus_take(self.adapter.n)
            igb_watchdog_task(self.adapter)
            cpus_release(self.adapter.n)
            cpus_wake(self.adapter.n)

    def set_mtu(self, int mtu):
        """Set the MTU, 68 to 9216; above 1512 frames may take several descriptors. [igb_change_mtu()]"""
        igb_ethtool.check_mtu(mtu)
        with nogil:
            cpus_take(self.adapter.n)
            self.adapter.dev.mtu = mtu
            self.adapter.max_frame_size = mtu + ETH_OVERHEAD
            if self.running:
                igb_set_rx_mode(self.adapter)
            cpus_release(self.adapter.n)

    def set_ring(self, rx=None, tx=None):
        """Set the ring sizes, 64 to 4096 descriptors, a multiple of 8; no frame is lost. [igb_set_ringparam()]"""
        cdef igb_q_vector *q = self.adapter.q_vector
        cdef u32 i
        cdef u32 rx_count = igb_ethtool.check_ring("rx", rx) if rx is not None else q.rx.count
        cdef u32 tx_count = igb_ethtool.check_ring("tx", tx) if tx is not None else q.tx.count
        if self.running:
            igb_set_ringparam(self.adapter, rx_count, tx_count)
        else:
            for i in range(IGB_MAX_QUEUES):
                q[i].rx.count, q[i].tx.count = rx_count, tx_count

    def set_channels(self, int combined):
        """Set the number of queue pairs, 1 to 8; no frame is lost, none is overtaken. [igb_set_channels()]

        The indirection table becomes the default of that number. After MemoryError or OSError nothing has changed.
        """
        igb_ethtool.check_queues(combined)
        if self.running:
            igb_set_channels(self.adapter, combined)
        else:
            self.adapter.num_queues = combined
            igb_rss_default(self.adapter)

    def self_test(self, bint offline=True):
        """``ethtool -t``: 0 for passed by test; offline tests stop the device for a moment. [igb_diag_test()]

        What the tests sent and counted is taken out of the statistics again.
        """
        cdef u32 result[IGB_TEST_NR]
        cdef dict before
        cdef bint was_running = self.running
        memset(result, 0, sizeof(result))
        result[<int>IGB_TEST_LINK] = not self.carrier
        if offline:
            before = dict(self.update_totals())
            if was_running:
                with nogil:
                    cpus_take(self.adapter.n)
                    igb_drain_rx(self.adapter)
                    cpus_release(self.adapter.n)
                self.close()
            try:
                igb_diag_test(self.adapter, result)
            finally:
                self.update_totals()
                self.totals = before
                if was_running:
                    self.open()
        return dict(zip(igb_ethtool.TESTS, result, strict=True))

    # ---- what is changed while frames come

    def set_mac(self, bytes mac):
        """Take another address: the NIC's filter, and what is sent from now on. [igb_set_mac()]"""
        if len(mac) != 6 or mac[0] & 1 or not any(mac):
            raise ValueError(f"mac={mac.hex(':')!r}: give 6 bytes of a unicast address, as 02:00:00:00:00:01")
        with nogil:
            cpus_take(self.adapter.n)
        memcpy(self.adapter.dev.dev_addr, <const u8 *>mac, 6)
        for i in range(IGB_MAX_QUEUES):
            self.adapter.q_vector[<int>i].rx.mac = ether_addr_to_u64(self.adapter.dev.dev_addr)
        igb_rar_set(self.adapter)
        cpus_release(self.adapter.n)

    def set_promisc(self, bint on):
        """Take frames for every address, or stop; the other choices of set_rx_mode() stay. [dev_set_promiscuity()]"""
        self.set_mode(&self.adapter.promisc, on, IFF_PROMISC)

    def set_allmulti(self, bint on):
        """Take frames for every group, or stop. [dev_set_allmulti()]"""
        self.set_mode(&self.adapter.allmulti, on, IFF_ALLMULTI)

    cdef void set_mode(self, u32 *mode, bint on, u32 flag) noexcept:
        with nogil:
            cpus_take(self.adapter.n)
            mode[0] = on
            if on:
                fetch_or32(&self.adapter.dev.flags, flag)
            else:
                fetch_and32(&self.adapter.dev.flags, ~flag)
            if self.running:
                igb_set_rx_mode(self.adapter)
            cpus_release(self.adapter.n)

    def set_rx_mode(self, bint promisc=False, bint allmulti=False, multicast=()):
        """Choose the frames to take beside our own and broadcast. [igb_set_rx_mode()]

        ``multicast`` are addresses of 6 bytes; more than 64 turn into all of them.
        """
        cdef bytes address
        cdef u32 count = 0
        addresses = list(multicast)
        igb_ethtool.check_multicast(addresses)
        with nogil:
            cpus_take(self.adapter.n)
        for address in addresses[:MAX_MC]:
            memcpy(self.adapter.mc[count], <const u8 *>address, 6)
            count += 1
        self.adapter.nr_mc = count
        self.adapter.promisc = promisc
        self.adapter.allmulti = allmulti or len(addresses) > MAX_MC
        fetch_and32(&self.adapter.dev.flags, ~<u32>(IFF_PROMISC | IFF_ALLMULTI))
        fetch_or32(&self.adapter.dev.flags, (IFF_PROMISC if promisc else 0) | (IFF_ALLMULTI if allmulti else 0))
        if self.running:
            igb_set_rx_mode(self.adapter)
        cpus_release(self.adapter.n)

    def set_mc_list(self, bytes addresses):
        """Take frames to these group addresses, 6 bytes each, beside all else. [igb_write_mc_addr_list()]"""
        cdef const u8 *at = addresses
        cdef size_t count = <size_t>len(addresses) // 6
        with nogil:
            cpus_take(self.adapter.n)
            igb_write_mc_addr_list(self.adapter, at, count)
            if self.running:
                igb_set_rx_mode(self.adapter)
            cpus_release(self.adapter.n)

    def set_rss(self, bytes key=None, udp4=None, indirection=None):
        """Set the 40-byte hash key, ``udp4``: hash the ports of UDP too (rx-flow-hash udp4 sdfn), the table.

        ``indirection``: the queue of each of 128 hash values. No frame is lost, none is overtaken.
        """
        cdef bytes table
        cdef const u8 *given = NULL
        cdef int udp = -1 if udp4 is None else bool(udp4)
        if key is not None and len(key) != 40:
            raise ValueError(f"a key of {len(key)} bytes: RSS takes 40")
        if indirection is not None:
            igb_ethtool.check_indirection(indirection, self.adapter.num_queues)
            table = bytes(indirection)
            given = table
        cdef const u8 *new_key = NULL
        if key is not None:
            new_key = key
        with nogil:
            igb_set_rss(self.adapter, new_key, given, udp)

    def set_coalesce(self, int rx_usecs):
        """Set the throttle: 0 off, 1 dynamic, 3 dynamic but gentle, 10 to 10000 microseconds."""
        cdef u32 setting = igb_ethtool.check_usecs(rx_usecs)
        with nogil:
            igb_set_coalesce(self.adapter, setting)

    def set_missed(self, u64 total):
        """Say how many frames the wire has lost so far: they appear as rx_missed_errors (MPC)."""
        igb_set_missed(self.adapter.nic, total)

    def taken(self):
        """Frames read off the wire so far (TPR), those that somebody was reading when it was asked included."""
        with nogil:
            synchronize(self.adapter.n)
        return load_relaxed64(&self.adapter.nic.stat[<int>IGB_STAT_TPR])

    # ---- what ethtool shows

    def ring(self):
        """``ethtool -g``."""
        return {"rx-max": IGB_MAX_RXD, "tx-max": IGB_MAX_RXD, "rx": self.adapter.q_vector.rx.count,
                "tx": self.adapter.q_vector.tx.count}

    def coalesce(self):
        """``ethtool -c``."""
        cdef u32 setting = self.adapter.rx_itr_setting
        return {"rx-usecs": setting if setting <= 3 else setting >> 2, "tx-usecs": 0}

    @property
    def rx_queues(self):
        """Receive queues in use. [real_num_rx_queues]"""
        return self.adapter.num_queues

    def vector_itr(self, u32 queue=0):
        """A ring's throttle as the NIC has it (EITR), in quarters of a microsecond."""
        return rd32(self.adapter.nic, E1000_EITR + 4 * self.adapter.q_vector[queue].vector)

    def drvinfo(self):
        """``ethtool -i``."""
        return igb_ethtool.drvinfo()

    def rss(self):
        """``ethtool -x`` and ``-n rx-flow-hash udp4``: the queue of each of 128 hash values, the key."""
        return {"rings": self.adapter.num_queues, "rings-max": IGB_MAX_QUEUES,
                "indirection": [self.adapter.rss_indir[<int>i] for i in range(128)],
                "key": self.adapter.rss_key[:40], "udp4": "sdfn" if self.adapter.rss_udp else "sd"}

    def registers(self):
        """``ethtool -d``: every register by its name, without those that reading changes."""
        return {reg.name[6:]: rd32(self.adapter.nic, reg) for reg in e1000_reg
                if reg.name[6:] not in ("ICR", "EICR", "RQDPC") and not 0x4000 <= reg < 0x4200}

    cdef dict update_totals(self):
        """Add up the statistics registers. [igb_update_stats()]"""
        for name in igb_ethtool.REGISTERS:
            self.totals[name] += rd32(self.adapter.nic, e1000_reg["E1000_" + name])
        self.totals["GORC"] = self.octets("GORC", E1000_GORCL, E1000_GORCH)
        self.totals["GOTC"] = self.octets("GOTC", E1000_GOTCL, E1000_GOTCH)
        for i in range(IGB_MAX_QUEUES):
            drops = rd32(self.adapter.nic, E1000_RQDPC + 0x40 * i)
            self.adapter.q_vector[<int>i].rx.drops += <u64>drops
            self.totals["RQDPC"] += drops
        return self.totals

    cdef object octets(self, str name, u32 low, u32 high):
        cdef u64 since = rd32(self.adapter.nic, low)
        since |= <u64>rd32(self.adapter.nic, high) << 32
        return self.totals[name] + since

    def queues(self):
        """Counters of each queue in use, as ``tx_queue_0_packets``."""
        cdef igb_q_vector *q
        cdef u32 i
        out = {}
        for i in range(self.adapter.num_queues):
            q = &self.adapter.q_vector[i]
            out[f"tx_queue_{i}_packets"] = load_relaxed64(&q.tx.packets)
            out[f"tx_queue_{i}_bytes"] = load_relaxed64(&q.tx.bytes)
            out[f"tx_queue_{i}_restart"] = load_relaxed64(&q.tx.restart)
        for i in range(self.adapter.num_queues):
            q = &self.adapter.q_vector[i]
            out[f"rx_queue_{i}_packets"] = load_relaxed64(&q.rx.packets)
            out[f"rx_queue_{i}_bytes"] = load_relaxed64(&q.rx.bytes)
            out[f"rx_queue_{i}_drops"] = q.rx.drops
            out[f"rx_queue_{i}_csum_err"] = load_relaxed64(&q.rx.csum_err)
            out[f"rx_queue_{i}_alloc_failed"] = load_relaxed64(&q.rx.alloc_failed)
        return out

    def stats(self):
        """``ethtool -S``, in its order."""
        return igb_ethtool.stats(self.update_totals(), self.link_stats(), self.queues())

    def link_stats(self):
        """The fields of struct rtnl_link_stats64."""
        cdef igb_adapter *adapter = self.adapter
        cdef u64 rx_packets = 0, rx_bytes = 0, tx_packets = 0, tx_bytes = 0, multicast = 0
        cdef u32 i
        for i in range(IGB_MAX_QUEUES):
            rx_packets += load_relaxed64(&adapter.q_vector[i].rx.packets)
            rx_bytes += load_relaxed64(&adapter.q_vector[i].rx.bytes)
            multicast += load_relaxed64(&adapter.q_vector[i].rx.multicast)
            tx_packets += load_relaxed64(&adapter.q_vector[i].tx.packets)
            tx_bytes += load_relaxed64(&adapter.q_vector[i].tx.bytes)
        return igb_ethtool.link_stats(self.update_totals(), {
            "rx_packets": rx_packets, "tx_packets": tx_packets, "rx_bytes": rx_bytes, "tx_bytes": tx_bytes,
            "rx_dropped": load_relaxed64(&adapter.dev.stats.rx_dropped),
            "tx_dropped": load_relaxed64(&adapter.dev.stats.tx_dropped),
            "multicast": multicast, "rx_nohandler": load_relaxed64(&adapter.dev.stats.rx_nohandler),
        })

    def queued(self):
        """Frames that stand in the receive rings, finished or begun but not cleaned."""
        cdef u32 i, frames = 0
        with nogil:
            cpus_take(self.adapter.n)
            for i in range(self.adapter.num_queues):
                frames += igb_queued_frames(&self.adapter.q_vector[i].rx)
            cpus_release(self.adapter.n)
        return frames
