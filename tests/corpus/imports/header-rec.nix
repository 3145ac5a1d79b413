{ ... }: rec {
  name = "a";
  networking.hostName = name;
}
