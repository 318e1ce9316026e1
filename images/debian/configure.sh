# shellcheck shell=sh
# Runs inside the new root once all packages are installed.

# What tells one machine from another is made at boot, or by VIVER.
rm -f /etc/ssh/ssh_host_* /etc/resolv.conf /etc/hostname /var/lib/dbus/machine-id
: >/etc/machine-id
passwd -l root >/dev/null

if [ -e /etc/systemd/system/viver-ssh-keys.service ]; then
    systemctl enable viver-ssh-keys.service 2>/dev/null
fi
if [ -e /etc/init.d/viver-ssh-keys ]; then
    update-rc.d viver-ssh-keys defaults
fi

# Which machine runs which of these is decided by a rune, not by a package.
for unit in nfs-server rpcbind.socket rpcbind nfs-blkmap nfs-client.target icecc-scheduler iceccd chrony; do
    if [ -e /lib/systemd/system/"$unit" ] || [ -e /lib/systemd/system/"$unit".service ]; then
        systemctl disable "$unit" 2>/dev/null
    fi
done

# On the login screen, and only there, the members of this group need no password.
if [ -e /usr/sbin/lightdm ]; then
    groupadd --system nopasswdlogin
    sed -i '/^@include common-auth/i auth sufficient pam_succeed_if.so user ingroup nopasswdlogin' /etc/pam.d/lightdm
    useradd --create-home --shell /bin/bash --comment Guest --groups nopasswdlogin,audio,video guest
fi

# The network managers that write resolv.conf link it where they install into a machine.
if [ -e /etc/systemd/network/90-wired.network ] || [ -e /etc/netplan/90-wired.yaml ]; then
    systemctl enable systemd-networkd systemd-resolved 2>/dev/null
    ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
fi
if [ -e /usr/sbin/connmand ]; then
    ln -s /run/connman/resolv.conf /etc/resolv.conf
fi
if [ -d /etc/netplan ]; then # netplan warns of files that everybody may read
    chmod 600 /etc/netplan/*
fi

# VIVER's initramfs takes the place of Debian's, also after a kernel update.
if [ -e /etc/initramfs-tools/update-initramfs.conf ]; then
    sed -i 's/^update_initramfs=.*/update_initramfs=no/' /etc/initramfs-tools/update-initramfs.conf
fi
rm -f /boot/initrd.img* /var/log/*.log /var/log/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old
