#!@shell@
# The system's own first program, before systemd: brings /etc, users and /run to this system.
export PATH=@path@
systemConfig=@out@
echo "running activation script..."
NIXOS_ACTION=boot "$systemConfig/activate" || echo "warning: the activation failed" >&2
ln -sfn "$systemConfig" /run/booted-system
