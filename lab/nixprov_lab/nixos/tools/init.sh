#!@shell@
# The system's first program, before systemd: sets up /etc, users and /run for this system.
export PATH=@path@
systemConfig=@out@
echo "running activation script..."
NIXOS_ACTION=boot "$systemConfig/activate" || echo "warning: the activation failed" >&2
ln -sfn "$systemConfig" /run/booted-system
