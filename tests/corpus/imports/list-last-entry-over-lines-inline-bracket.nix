{ ... }:
{
  imports = [ ({ ... }: {
    networking.hostName = "a";
  }) ];
}
