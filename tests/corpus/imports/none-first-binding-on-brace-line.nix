{ ... }:
{ networking.hostName = "a";
  a = 1;
}
